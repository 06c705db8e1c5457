//! The ciphertext of events that the SDK hands over decrypted: it forgets it, the trail must not.
//!
//! The same sync is asked for once more without the SDK looking at it, which Synapse answers from
//! its cache; an event that is not in the answer is fetched by itself. Where the homeserver is away, it is asked again,
//! and what it does not give in the end the record says.

use std::collections::{HashMap, HashSet};

use matrix_sdk::{
    Client,
    config::RequestConfig,
    ruma::{
        EventId, OwnedEventId, OwnedRoomId, RoomId,
        api::client::{room::get_room_event, sync::sync_events},
        presence::PresenceState,
    },
    sync::SyncResponse,
};

use super::{
    filter::{LONG_POLL, filter},
    lookup::Lookup,
};
use crate::worker::session::{SessionError, classify_http};

/// The ciphertext events by their id; what cannot be had is missing.
pub(super) async fn of(
    client: &Client,
    lookup: &Lookup,
    response: &SyncResponse,
    since: Option<&str>,
) -> HashMap<OwnedEventId, String> {
    let mut wanted = decrypted(response);
    let mut found = HashMap::new();
    if wanted.is_empty() {
        return found;
    }
    repeat_sync(client, since, &mut wanted, &mut found).await;
    for (event, room) in wanted {
        if let Some(raw) = lookup.ask_for_one(event.as_str(), || fetch(client, &room, &event)).await {
            found.insert(event, raw);
        } else {
            tracing::warn!(%event, "cannot fetch the ciphertext of an event");
        }
    }
    found
}

async fn fetch(client: &Client, room: &RoomId, event: &EventId) -> Result<String, SessionError> {
    let request = get_room_event::v3::Request::new(room.to_owned(), event.to_owned());
    let response = client.send(request).await.map_err(|error| classify_http(&error))?;
    let raw = response.event.json().get();
    // An answer of something in front of the homeserver, as far as anybody knows: the next one may be the event.
    if is_event(raw, event) { Ok(raw.to_owned()) } else { Err(SessionError::Server { status: 500 }) }
}

/// Whether this is the event that was asked for. An answer without a body reads as an event without any field, and in place
/// of the ciphertext it would take sender and time from the record.
fn is_event(raw: &str, asked: &EventId) -> bool {
    #[derive(serde::Deserialize)]
    struct Answer {
        event_id: OwnedEventId,
    }
    serde_json::from_str::<Answer>(raw).is_ok_and(|answer| answer.event_id == asked)
}

fn decrypted(response: &SyncResponse) -> HashMap<OwnedEventId, OwnedRoomId> {
    let joined = response.rooms.joined.iter().map(|(room, update)| (room, &update.timeline));
    let left = response.rooms.left.iter().map(|(room, update)| (room, &update.timeline));
    let events = joined.chain(left).flat_map(|(room, timeline)| {
        let opened = timeline.events.iter().filter(|event| event.encryption_info().is_some());
        opened.filter_map(|event| Some((event.event_id()?, room.clone())))
    });
    events.collect()
}

async fn repeat_sync(
    client: &Client,
    since: Option<&str>,
    wanted: &mut HashMap<OwnedEventId, OwnedRoomId>,
    found: &mut HashMap<OwnedEventId, String>,
) {
    // A first sync is too big to be asked for twice.
    let Some(since) = since else { return };
    let mut request = sync_events::v3::Request::new();
    request.since = Some(since.to_owned());
    request.filter = Some(filter().into());
    request.timeout = Some(LONG_POLL);
    request.set_presence = PresenceState::Offline;
    request.use_state_after = true;
    let config = RequestConfig::new().disable_retry().timeout(LONG_POLL * 2);
    let response = match client.send(request).with_request_config(config).await {
        Ok(response) => response,
        Err(error) => {
            tracing::debug!(%error, "cannot repeat a sync");
            return;
        }
    };
    let ids: HashSet<OwnedEventId> = wanted.keys().cloned().collect();
    let joined = response.rooms.join.into_values().map(|room| room.timeline.events);
    let left = response.rooms.leave.into_values().map(|room| room.timeline.events);
    for event in joined.chain(left).flatten() {
        if let Ok(Some(id)) = event.get_field::<OwnedEventId>("event_id")
            && ids.contains(&id)
        {
            wanted.remove(&id);
            found.insert(id, event.json().get().to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use matrix_sdk::ruma::event_id;

    use super::is_event;

    #[test]
    fn only_the_event_that_was_asked_for_is_taken_for_it() {
        let asked = event_id!("$asked:here.org");
        assert!(is_event(
            r#"{"event_id": "$asked:here.org", "type": "m.room.encrypted", "content": {}}"#,
            asked
        ));
        for other in ["{}", "", "[]", r#"{"event_id": "$other:here.org"}"#, r#"{"errcode": "M_UNKNOWN"}"#] {
            assert!(!is_event(other, asked), "{other}");
        }
    }
}
