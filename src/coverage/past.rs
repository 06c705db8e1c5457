//! What a room was before: rooms that everybody here has left, of which the homeserver shows no state any more, and rooms
//! that another one replaced.

use serde_json::Value;

use super::planner::content;
use crate::{
    domain::{RoomId, UserId},
    homeserver::{Admin, HomeserverError, Result, StateEvent},
};

/// A room that was upgraded more often is followed back no further.
const MOST_UPGRADES: usize = 8;

/// The state of a room; none if there is no such room.
pub(super) async fn state(
    admin: &dyn Admin,
    room: &RoomId,
    event_type: Option<&str>,
) -> Result<Vec<StateEvent>> {
    match admin.room_state(room, event_type).await {
        Err(HomeserverError::NotFound { .. }) => Ok(Vec::new()),
        state => state,
    }
}

/// The state of these types as it was last seen here: of a room that everybody here has left, its newest events tell.
pub(super) async fn last_state(admin: &dyn Admin, room: &RoomId, types: &[&str]) -> Result<Vec<StateEvent>> {
    let mut last: Vec<StateEvent> = Vec::new();
    for event in newest(admin, room, types, None).await?.iter().filter_map(state_event) {
        let is_it =
            |newer: &StateEvent| newer.event_type == event.event_type && newer.state_key == event.state_key;
        if !last.iter().any(is_it) {
            last.push(event);
        }
    }
    Ok(last)
}

/// The newest events of these types, of one sender or all; none if there is no such room.
pub(super) async fn newest(
    admin: &dyn Admin,
    room: &RoomId,
    types: &[&str],
    sender: Option<&UserId>,
) -> Result<Vec<Value>> {
    match admin.newest_events(room, types, sender).await {
        Err(HomeserverError::NotFound { .. }) => Ok(Vec::new()),
        events => events,
    }
}

/// A state event as the client API tells it; none if it is none.
pub(super) fn state_event(event: &Value) -> Option<StateEvent> {
    let text = |name: &str| event.get(name).and_then(Value::as_str).map(ToOwned::to_owned);
    Some(StateEvent {
        event_id: text("event_id")?,
        replaces: event.pointer("/unsigned/replaces_state").and_then(Value::as_str).map(ToOwned::to_owned),
        event_type: text("type")?,
        state_key: text("state_key")?,
        sender: text("sender")?,
        content: event.get("content")?.clone(),
    })
}

/// The rooms that a room replaces, the latest first. Its create event says so, which anybody can write into a room of
/// theirs; so it counts only if the tombstone of the older room names it in turn.
pub(super) async fn replaced_by(
    admin: &dyn Admin,
    room: &RoomId,
    create: Option<&Value>,
) -> Result<Vec<RoomId>> {
    let mut replaced: Vec<RoomId> = Vec::new();
    let mut older = create.and_then(predecessor);
    while let Some(room_id) = older.take().filter(|older| older != room && !replaced.contains(older))
        && replaced.len() < MOST_UPGRADES
    {
        let newer = replaced.last().unwrap_or(room);
        let known = shown_or_last(admin, &room_id, "m.room.tombstone").await?;
        let tombstone = content(&known, "m.room.tombstone", "");
        let heir = tombstone.and_then(|tombstone| tombstone.get("replacement_room")?.as_str());
        if heir != Some(newer.as_str()) {
            break;
        }
        let known = shown_or_last(admin, &room_id, "m.room.create").await?;
        older = content(&known, "m.room.create", "").and_then(predecessor);
        replaced.push(room_id);
    }
    Ok(replaced)
}

/// The room that a room says it replaces.
pub(super) fn predecessor(create: &Value) -> Option<RoomId> {
    RoomId::parse(create.pointer("/predecessor/room_id")?.as_str()?).ok()
}

/// State of one type, as it is or was last.
pub(super) async fn shown_or_last(
    admin: &dyn Admin,
    room: &RoomId,
    event_type: &str,
) -> Result<Vec<StateEvent>> {
    let shown = state(admin, room, Some(event_type)).await?;
    if shown.is_empty() { last_state(admin, room, &[event_type]).await } else { Ok(shown) }
}
