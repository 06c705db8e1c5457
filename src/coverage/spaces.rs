//! The rooms of excluded spaces.

use std::collections::{HashSet, VecDeque};

use crate::{
    domain::RoomId,
    homeserver::{Admin, HomeserverError, Result},
};

/// A space tree with more rooms than this is cut off.
const MOST_ROOMS: usize = 5000;

/// The given spaces and every room below them. A space says itself what is in it
/// (`m.space.child`); a room that merely claims to be in one (`m.space.parent`) is not, else
/// everybody could take their room out of the selection.
pub(super) async fn below(admin: &dyn Admin, spaces: &[RoomId]) -> Result<HashSet<RoomId>> {
    let mut found: HashSet<RoomId> = spaces.iter().cloned().collect();
    let mut open: VecDeque<RoomId> = spaces.iter().cloned().collect();
    while let Some(space) = open.pop_front() {
        let children = match admin.room_state(&space, Some("m.space.child")).await {
            Ok(state) => state,
            Err(HomeserverError::NotFound { .. }) => continue,
            Err(error) => return Err(error),
        };
        for child in children {
            // A child without servers to find it by was taken out of the space.
            let is_child = child.content.get("via").is_some_and(serde_json::Value::is_array);
            let Ok(room) = RoomId::parse(child.state_key) else { continue };
            if is_child && found.len() < MOST_ROOMS && found.insert(room.clone()) {
                open.push_back(room);
            }
        }
    }
    Ok(found)
}
