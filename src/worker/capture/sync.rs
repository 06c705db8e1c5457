//! Sync with our own cursor: ask, convert, write records and cursor together, ask again.

use std::time::Duration;

use matrix_sdk::{
    config::{SyncSettings, SyncToken},
    deserialized_responses::TimelineEvent,
    ruma::{RoomId as RumaRoomId, presence::PresenceState},
    sync::{State, SyncResponse},
};
use tokio_util::sync::CancellationToken;

use super::{
    Capture, ciphertext,
    collector::Collector,
    filter::{LONG_POLL, filter},
    history::{Span, read_page},
    received::{Received, decrypt},
};
use crate::{
    domain::{Failure, RoomId, worker::Check},
    worker::{
        backoff::Backoff,
        recorder::Stop,
        records,
        session::{SessionError, classify},
    },
};

pub(crate) const CURSOR: &str = "matrix:sync";

/// Cursor of the newest event of a room that sync has told: where the next gap ends.
pub(crate) fn last_event_cursor(room: &str) -> String {
    format!("matrix:last:{room}")
}

/// Account data that says something about the identity.
fn concerns_identity(kind: &str) -> bool {
    ["m.secret_storage.", "m.cross_signing.", "m.megolm_backup.", "m.key_backup", "io.element.ems-bots."]
        .iter()
        .any(|prefix| kind.starts_with(prefix))
}

impl Capture {
    /// Runs until cancelled, or until this process must end.
    pub(crate) async fn run(mut self, cancel: CancellationToken) -> Result<(), Stop> {
        match self.follow(&cancel).await {
            Err(Stop::Cancelled) | Ok(()) => Ok(()),
            Err(stop) => Err(stop),
        }
    }

    async fn follow(&mut self, cancel: &CancellationToken) -> Result<(), Stop> {
        let mut since = self.recorder.cursor(CURSOR, cancel).await?;
        self.spans = super::history::Spans::load(&self.recorder, cancel).await?;
        let mut backoff = Backoff::default();
        while !cancel.is_cancelled() {
            // With history to read, sync only looks whether there is something new.
            let timeout = if self.spans.is_empty() { LONG_POLL } else { Duration::ZERO };
            let settings = SyncSettings::new()
                .token(since.clone().map_or(SyncToken::NoToken, SyncToken::Specific))
                .filter(filter().into())
                .timeout(timeout)
                .set_presence(PresenceState::Offline);
            let response = tokio::select! {
                response = self.session.client.sync_once(settings) => response,
                () = cancel.cancelled() => return Ok(()),
            };
            match response {
                Ok(response) => {
                    backoff.reset();
                    let next = response.next_batch.clone();
                    self.absorb(response, since.as_deref(), timeout, cancel).await?;
                    since = Some(next);
                    self.read_history(cancel).await?;
                    self.say_recording();
                }
                Err(error) => {
                    let error = classify(&error);
                    self.say_failing(&error);
                    if !backoff.wait(error.retry(), cancel).await {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// Records a response; the cursor moves with its last part.
    async fn absorb(
        &mut self,
        response: SyncResponse,
        since: Option<&str>,
        timeout: Duration,
        cancel: &CancellationToken,
    ) -> Result<(), Stop> {
        for room in response.rooms.invited.keys() {
            if let Ok(room) = RoomId::parse(room.as_str()) {
                self.presence.invited(&room);
            }
        }
        let types =
            response.account_data.iter().filter_map(|event| event.get_field::<String>("type").ok()?);
        if since.is_some() && types.into_iter().any(|kind| concerns_identity(&kind)) {
            self.bell.notify_one();
        }
        let mut ciphertexts = ciphertext::of(&self.session.client, &response, since, timeout).await;
        let (recorder, lookup, presence) =
            (self.recorder.clone(), self.lookup.clone(), self.presence.clone());
        let bot = self.bot.clone();
        let mut collector = Collector::new(&recorder, &lookup, presence.as_ref(), &bot, self.scope, cancel);
        let joined =
            response.rooms.joined.into_iter().map(|(room, update)| (room, update.state, update.timeline));
        let left =
            response.rooms.left.into_iter().map(|(room, update)| (room, update.state, update.timeline));
        let mut cursors = Vec::new();
        for (room, state, timeline) in joined.chain(left) {
            let (State::Before(state) | State::After(state)) = state;
            for event in state {
                collector.take(&Received::plain(room.as_str(), event.into_json().as_ref()), false).await?;
            }
            let newest = timeline.events.iter().rev().find_map(TimelineEvent::event_id);
            for event in &timeline.events {
                let cipher = event.event_id().and_then(|id| ciphertexts.remove(&id));
                let received =
                    self.senders.judge(Received::from_timeline(room.as_str(), event, cipher)).await;
                collector.take(&received, false).await?;
            }
            let last = last_event_cursor(room.as_str());
            if timeline.limited
                && let Some(from) = timeline.prev_batch
            {
                let until = recorder.cursor(&last, cancel).await?;
                cursors.push(self.spans.add(Span { room: room.to_string(), from, until }));
            }
            cursors.extend(newest.map(|newest| (last, newest.to_string())));
        }
        for (name, value) in cursors {
            collector.cursor(name, value);
        }
        collector.cursor(CURSOR, response.next_batch);
        collector.flush().await?;
        self.metrics.synced(recorder.clock().now(), collector.newest_ms);
        self.late_keys.retry(collector.incomplete_rooms);
        Ok(())
    }

    /// Reads one page of what sync left out.
    async fn read_history(&mut self, cancel: &CancellationToken) -> Result<(), Stop> {
        let Some(span) = self.spans.next() else { return Ok(()) };
        let page = match read_page(&self.session.client, &span).await {
            Ok(page) => page,
            Err(SessionError::Refused { status, errcode }) => {
                // The bot may not read it (any more): say so once and go on.
                let why = format!("the homeserver refuses to show it: {errcode} ({status})");
                return self.give_up(&span, &why, cancel).await;
            }
            Err(error) => {
                self.metrics.sync_error(error.category());
                tracing::warn!(%error, "cannot read a room's history");
                // Rooms take turns, so that one does not hold up the others.
                let from = span.from.clone();
                let _ = self.spans.advance(&span, Some(from));
                tokio::time::sleep(Duration::from_secs(1)).await;
                return Ok(());
            }
        };
        let room = RumaRoomId::parse(span.room.as_str()).ok();
        let room = room.and_then(|room| self.session.client.get_room(&room));
        let (recorder, lookup, presence) =
            (self.recorder.clone(), self.lookup.clone(), self.presence.clone());
        let bot = self.bot.clone();
        let mut collector = Collector::new(&recorder, &lookup, presence.as_ref(), &bot, self.scope, cancel);
        let mut reached = false;
        self.metrics.backfilled(page.events.len());
        for event in &page.events {
            let received = match &room {
                Some(room) => self.senders.judge(decrypt(room, event, span.until.is_none()).await).await,
                None => Received::plain(&span.room, event),
            };
            reached |= received.event_id.is_some() && received.event_id == span.until;
            collector.take(&received, false).await?;
        }
        let next = page.next.filter(|_| !reached);
        let (name, value) = self.spans.advance(&span, next);
        collector.cursor(name, value);
        collector.flush().await?;
        self.late_keys.retry(collector.incomplete_rooms);
        Ok(())
    }

    async fn give_up(&mut self, span: &Span, why: &str, cancel: &CancellationToken) -> Result<(), Stop> {
        let now = self.recorder.clock().now();
        let draft = records::gap(&self.bot_name, &span.room, &span.from, why, now);
        let cursor = self.spans.advance(span, None);
        let batch = crate::store::Batch { drafts: vec![draft], cursors: vec![cursor], ..Default::default() };
        self.recorder.append(&batch, cancel).await.map(drop)
    }

    fn say_recording(&self) {
        // The history of a new room is read in a moment; that is no news.
        let history = match self.spans.len() {
            0..=20 => "history: on",
            _ => "history: much is still to be read",
        };
        self.metrics.history(self.spans.len());
        let message = format!("{}; rooms: on; late keys: on; {history}", self.scope.description());
        self.board.set(|report| report.recording = Check::ok("Recording", message));
        self.health.ready("sync");
    }

    fn say_failing(&self, error: &SessionError) {
        self.metrics.sync_error(error.category());
        tracing::warn!(category = error.category(), %error, "sync");
        let check = error.check();
        self.board.set(|report| {
            report.recording = Check::failed("SyncFailing", format!("rooms: off: {}", check.message));
            if error.ends_session() {
                report.encryption = check;
            }
        });
    }
}
