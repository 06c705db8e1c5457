//! Whether a selection leaves a room out, and why.

use serde_json::Value;

use super::{Exclusion, Identity, RoomFacts};
use crate::domain::{
    RoomId, UserId,
    selection::{Leave, RoomSelection},
};

/// The first reason for which the selection leaves the room out.
pub fn excluded(facts: &RoomFacts, selection: &RoomSelection, identity: &Identity) -> Option<Exclusion> {
    if matches!(selection.leave, Leave::Everything { .. }) {
        return Some(Exclusion::Farewell);
    }
    let names = std::iter::once(&facts.room_id).chain(&facts.replaces);
    if let Some(reason) = by_name(names, selection) {
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
    if creator_does_not_match(creator, selection) {
        return Some(Exclusion::CreatorPattern);
    }
    (selection.minimum_last_active.is_some() && facts.is_inactive).then_some(Exclusion::Inactive)
}

/// An invitation to a room that the homeserver does not list, as its sender told of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Invitation {
    /// Who invited the bot, if that is a user id.
    pub inviter: Option<String>,
    /// To a direct chat.
    pub is_direct: bool,
    /// Who made the room, if it says so.
    pub creator: Option<String>,
}

impl Invitation {
    /// Reads it out of the state that comes with an invitation.
    pub fn read(state: &[Value], bot: &str) -> Self {
        let text = |event: &Value, name: &str| event.get(name).and_then(Value::as_str).map(ToOwned::to_owned);
        let find = |kind: &str, key: &str| {
            state.iter().find(|event| event["type"] == kind && event["state_key"] == key)
        };
        let mine = find("m.room.member", bot);
        let create = find("m.room.create", "");
        Self {
            inviter: mine.and_then(|mine| text(mine, "sender")),
            is_direct: mine
                .is_some_and(|mine| mine.pointer("/content/is_direct") == Some(&Value::Bool(true))),
            creator: create.and_then(|create| text(create, "sender")),
        }
    }
}

/// The reason for which an invitation to a room that the homeserver does not list is refused: such
/// a room is on another server, and nobody of this one is in it.
pub fn excluded_unlisted(
    room: &RoomId,
    invitation: &Invitation,
    in_excluded_space: bool,
    selection: &RoomSelection,
) -> Option<Exclusion> {
    let inviter = invitation.inviter.as_deref();
    let is_of = |user: &UserId| inviter.is_none_or(|inviter| inviter == user.as_str());
    if matches!(selection.leave, Leave::Everything { .. }) {
        Some(Exclusion::Farewell)
    } else if let Some(reason) = by_name(std::iter::once(room), selection) {
        Some(reason)
    } else if in_excluded_space {
        Some(Exclusion::ExcludedSpace)
    } else if invitation.is_direct && !selection.direct_messages {
        Some(Exclusion::DirectMessage)
    } else if invitation.is_direct && selection.exclude_users.iter().any(is_of) {
        Some(Exclusion::ExcludedUser)
    } else if selection.local_only {
        Some(Exclusion::RemoteRoom)
    } else {
        creator_does_not_match(invitation.creator.as_deref(), selection).then_some(Exclusion::CreatorPattern)
    }
}

fn creator_does_not_match(creator: Option<&str>, selection: &RoomSelection) -> bool {
    let matches = |pattern: &regex::Regex| creator.is_some_and(|creator| pattern.is_match(creator));
    selection.creator_pattern.as_ref().is_some_and(|pattern| !matches(pattern))
}

/// `names`: the room's own and those of rooms that it replaces.
fn by_name<'a>(
    mut names: impl Iterator<Item = &'a RoomId> + Clone,
    selection: &RoomSelection,
) -> Option<Exclusion> {
    if names.clone().any(|name| selection.deny.contains(name)) {
        Some(Exclusion::Denied)
    } else if !selection.only.is_empty() && !names.any(|name| selection.only.contains(name)) {
        Some(Exclusion::NotSelected)
    } else {
        None
    }
}
