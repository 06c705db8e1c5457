//! Whether a selection leaves a room out, and why.

use super::{Exclusion, Identity, RoomFacts};
use crate::domain::{
    RoomId,
    selection::{Leave, RoomSelection},
};

/// The first reason for which the selection leaves the room out.
pub fn excluded(facts: &RoomFacts, selection: &RoomSelection, identity: &Identity) -> Option<Exclusion> {
    if matches!(selection.leave, Leave::Everything { .. }) {
        return Some(Exclusion::Farewell);
    }
    if let Some(reason) = by_name(&facts.room_id, selection) {
        return Some(reason);
    }
    if facts.in_excluded_space {
        return Some(Exclusion::ExcludedSpace);
    }
    if let Some(direct) = &facts.direct {
        if !selection.direct_messages {
            return Some(Exclusion::DirectMessage);
        }
        let is_excluded = |person: &String| selection.exclude_users.iter().any(|u| u.as_str() == person);
        if direct.people.iter().any(is_excluded) {
            return Some(Exclusion::ExcludedUser);
        }
    }
    let creator = facts.creator.as_deref();
    if selection.local_only && !creator.is_some_and(|creator| identity.is_local(creator)) {
        return Some(Exclusion::RemoteRoom);
    }
    if let Some(pattern) = &selection.creator_pattern
        && !creator.is_some_and(|creator| pattern.is_match(creator))
    {
        return Some(Exclusion::CreatorPattern);
    }
    (selection.minimum_last_active.is_some() && facts.is_inactive).then_some(Exclusion::Inactive)
}

/// The reason for which an invitation to a room that the homeserver does not list is refused: such
/// a room is on another server, and nobody of this one is in it.
pub fn excluded_unlisted(
    room: &RoomId,
    in_excluded_space: bool,
    selection: &RoomSelection,
) -> Option<Exclusion> {
    let leaves = matches!(selection.leave, Leave::Everything { .. });
    let farewell = leaves.then_some(Exclusion::Farewell);
    farewell
        .or_else(|| by_name(room, selection))
        .or(in_excluded_space.then_some(Exclusion::ExcludedSpace))
        .or(selection.local_only.then_some(Exclusion::RemoteRoom))
}

fn by_name(room: &RoomId, selection: &RoomSelection) -> Option<Exclusion> {
    if selection.deny.contains(room) {
        Some(Exclusion::Denied)
    } else if !selection.only.is_empty() && !selection.only.contains(room) {
        Some(Exclusion::NotSelected)
    } else {
        None
    }
}
