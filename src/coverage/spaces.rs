//! The rooms of excluded spaces.

use std::collections::{HashMap, HashSet, VecDeque};

use super::past;
use crate::{
    domain::RoomId,
    homeserver::{Admin, Result, RoomListing, StateEvent},
};

const CHILD: &str = "m.space.child";

/// The given spaces and every room below them. A space says itself what is in it
/// (`m.space.child`); a room that merely claims to be in one (`m.space.parent`) is not, else
/// everybody could take their room out of the selection. Of a space that everybody here has left
/// it is what it said last.
pub(super) async fn below(
    admin: &dyn Admin,
    spaces: &[RoomId],
    listed: &[RoomListing],
) -> Result<HashSet<RoomId>> {
    // Of a room that nobody here is in the list does not say what it is.
    let may_be_space =
        |room: &RoomListing| room.room_type.as_deref() == Some("m.space") || room.joined_local_members == 0;
    let may_have_children: HashMap<&RoomId, bool> = if spaces.is_empty() {
        HashMap::new()
    } else {
        listed.iter().map(|room| (&room.room_id, may_be_space(room))).collect()
    };
    let mut found: HashSet<RoomId> = spaces.iter().cloned().collect();
    let mut open: VecDeque<RoomId> = spaces.iter().cloned().collect();
    while let Some(space) = open.pop_front() {
        for room in children(admin, &space).await? {
            if found.insert(room.clone()) && may_have_children.get(&room) == Some(&true) {
                open.push_back(room);
            }
        }
    }
    Ok(found)
}

/// The rooms in a space, as it says itself or said last.
pub(super) async fn children(admin: &dyn Admin, space: &RoomId) -> Result<Vec<RoomId>> {
    // A child without servers to find it by was taken out of the space.
    let is_child = |child: &StateEvent| child.content.get("via").is_some_and(serde_json::Value::is_array);
    let said = past::shown_or_last(admin, space, CHILD).await?;
    let children = said.into_iter().filter(is_child);
    Ok(children.filter_map(|child| RoomId::parse(child.state_key).ok()).collect())
}
