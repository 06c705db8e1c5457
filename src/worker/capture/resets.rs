//! Settings that are in force again although something had replaced them. Where servers disagree, a room's state is
//! resolved anew, and no event says so; what sync tells of the state may show it.

use matrix_sdk::ruma::{OwnedRoomId, api::client::state::get_state_event_for_key::v3 as state_event};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{Capture, collector::Collector, sync::last_event_cursor};
use crate::{
    domain::{
        EventId, RoomId,
        filter::StoredRecord,
        record::{Occurred, RecordDraft, Relation},
    },
    worker::{
        convert::{read, reset, restored},
        recorder::Stop,
        session::classify_http,
    },
};

/// A setting that was changed more often since is not compared any further.
const MAX_CHANGES: usize = 1_000;

/// What the trail says of a setting.
struct Known {
    draft: RecordDraft,
    /// Its number; those that are not written yet follow all others.
    seq: i64,
    /// Not before this time, in milliseconds since 1970, anything took its place.
    since_ms: i64,
}

impl Capture {
    /// Records what of a room's state is in force again. `is_current`: it is the state as it is now, and not as it was at
    /// an event. Call when the trail, with what is gathered, has all that is told along with the state.
    pub(super) async fn note_resets(
        &self,
        collector: &mut Collector<'_>,
        room: &str,
        state: &[String],
        is_current: bool,
        cancel: &CancellationToken,
    ) -> Result<(), Stop> {
        // Of a room that it was told nothing of the trail knows no setting.
        if state.is_empty() || self.recorder.cursor(&last_event_cursor(room), cancel).await?.is_none() {
            return Ok(());
        }
        let Ok(room) = RoomId::parse(room) else { return Ok(()) };
        for raw in state {
            let event = read(raw);
            let Some(id) = field(&event, "event_id").and_then(|id| EventId::parse(id).ok()) else { continue };
            let Some(known) = self.in_force(collector.fresh(), &room, &id, cancel).await? else { continue };
            if !is_current {
                // On a branch of the room's history that has not come together with the others an older setting holds
                // although it is not in force.
                let now = cancel.run_until_cancelled(self.current(&room, &event)).await;
                if now.ok_or(Stop::Cancelled)?.as_deref() != Some(id.as_str()) {
                    continue;
                }
            }
            let now = self.recorder.clock().now().as_millisecond();
            let occurred = Occurred::Between(known.since_ms.min(now), now);
            collector.push(reset(room.as_str(), raw, &known.draft, occurred)).await?;
        }
        Ok(())
    }

    /// What the trail says is in force in place of a state event; nothing if that is the event itself.
    async fn in_force(
        &self,
        fresh: &[RecordDraft],
        room: &RoomId,
        event: &EventId,
        cancel: &CancellationToken,
    ) -> Result<Option<Known>, Stop> {
        let mut at = event.clone();
        let mut last: Option<Known> = None;
        for _ in 0..MAX_CHANGES {
            let Some(next) = self.replacement(fresh, room, &at, cancel).await? else { break };
            // What is in force again was replaced before, which counts no more.
            let counts = |last: &Known| last.draft.event_id().is_some() || next.seq > last.seq;
            if !last.as_ref().is_none_or(counts) {
                break;
            }
            let Some(id) = restored(&next.draft).and_then(|id| EventId::parse(id).ok()) else { break };
            at = id;
            last = Some(next);
        }
        Ok(last.filter(|_| at != *event))
    }

    /// What took the place of a state event last.
    async fn replacement(
        &self,
        fresh: &[RecordDraft],
        room: &RoomId,
        event: &EventId,
        cancel: &CancellationToken,
    ) -> Result<Option<Known>, Stop> {
        let now = self.recorder.clock().now();
        let wanted = [
            Relation::new("room", room.as_str(), "in"),
            Relation::new("event", event.as_str(), "replaces_state"),
        ];
        let is_wanted = |draft: &RecordDraft| wanted.iter().all(|one| draft.relations.contains(one));
        let here = fresh.iter().rev().enumerate().find(|(_, draft)| is_wanted(draft));
        let found = self.recorder.replacement(room, event, cancel).await?;
        let is_told_again = |found: &StoredRecord| {
            let sources = (here.map(|(_, draft)| &draft.source_id), found.content.as_ref());
            matches!(sources, (Some(here), Some(found)) if *here == found.source_id)
        };
        if let Some((place, draft)) = here
            && !found.as_ref().is_some_and(is_told_again)
        {
            let since_ms = draft.occurred.clamped(now).as_millisecond();
            let seq = i64::MAX.saturating_sub_unsigned(u64::try_from(place).unwrap_or(u64::MAX));
            return Ok(Some(Known { draft: draft.clone(), seq, since_ms }));
        }
        Ok(found.and_then(|found| {
            let since_ms = found.occurred_at.min(found.recorded_at).as_millisecond();
            Some(Known { draft: found.content?, seq: found.seq, since_ms })
        }))
    }

    /// Which event is in force now in the place of this one, as the homeserver tells the bot.
    async fn current(&self, room: &RoomId, event: &Value) -> Option<String> {
        let (kind, key) = (field(event, "type")?, field(event, "state_key")?);
        let room = OwnedRoomId::try_from(room.as_str()).ok()?;
        let mut request = state_event::Request::new(room, kind.into(), key.to_owned());
        request.format = state_event::StateEventFormat::Event;
        let ask = || {
            let request = self.session.client.send(request.clone());
            async move { request.await.map_err(|error| classify_http(&error)) }
        };
        let told = self.lookup.ask_for_one(field(event, "event_id")?, ask).await?;
        field(&read(told.event_or_content.get()), "event_id").map(str::to_owned)
    }
}

fn field<'a>(event: &'a Value, name: &str) -> Option<&'a str> {
    event.get(name).and_then(Value::as_str)
}
