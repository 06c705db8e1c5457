//! Sync with our own cursor: ask, convert, write records and cursor together, ask again.

use std::{collections::HashSet, future::Future, time::Duration};

use matrix_sdk::{
    config::{SyncSettings, SyncToken},
    deserialized_responses::{ProcessedToDeviceEvent, TimelineEvent},
    ruma::{OwnedEventId, presence::PresenceState},
    store::{StateStoreDataKey, StateStoreDataValue},
    sync::{State, SyncResponse},
};
use tokio::{
    task::{JoinError, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::{
    Capture, Scope,
    absence::{self, Attendance, Step, Told},
    backfill::Answer,
    ciphertext,
    collector::{Arrival, Collector},
    filter::{LONG_POLL, filter},
    history::{Span, Spans},
    received::Received,
};
use crate::{
    domain::{Failure, RoomId},
    worker::{
        backoff::Backoff,
        recorder::Stop,
        records,
        session::{SessionError, classify},
        sources::{Source, Standing},
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

/// Why a sync has nothing to record.
enum NoAnswer {
    Failed(SessionError),
    /// The SDK could not keep an answer that it had begun to take in. In its memory its Olm sessions have gone on, and it
    /// would not open the same messages again: only whoever starts anew has all keys.
    NotKept(SessionError),
    /// The SDK has seen an answer that ends at the same point, and takes this one for the same.
    LeftOut,
}

const LEFT_OUT: &str = "the Matrix client left out an answer that is not recorded; started anew, it will not";

fn broken(error: &JoinError) -> Stop {
    Stop::Broken(error.to_string())
}

impl Capture {
    /// Runs until cancelled, or until this process must end.
    pub(crate) async fn run(mut self, cancel: CancellationToken) -> Result<(), Stop> {
        let mut reading = JoinSet::new();
        let ended = Box::pin(self.follow(&mut reading, &cancel)).await;
        // Nothing is recorded after the end.
        reading.shutdown().await;
        match ended {
            Err(Stop::Cancelled) | Ok(()) => Ok(()),
            Err(stop) => Err(stop),
        }
    }

    async fn follow(
        &mut self,
        reading: &mut JoinSet<Answer>,
        cancel: &CancellationToken,
    ) -> Result<(), Stop> {
        let mut since = self.recorder.cursor(CURSOR, cancel).await?;
        self.spans = Spans::load(&self.recorder, cancel).await?;
        self.lookup.unread.begin(self.spans.conversations(), self.recorder.size());
        let mut backoff = Backoff::default();
        // News and history are asked for beside each other, and recorded one after the other.
        let mut syncing = JoinSet::new();
        syncing.spawn(self.ask(since.clone(), Duration::ZERO).in_current_span());
        loop {
            if reading.is_empty()
                && let Some(span) = self.spans.next(Instant::now())
            {
                reading.spawn(self.read(span, cancel).in_current_span());
            }
            let due = self.spans.due().filter(|_| reading.is_empty());
            tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                Some(answer) = syncing.join_next() => {
                    let wait = match answer.map_err(|error| broken(&error))? {
                        Ok(response) => {
                            let next = response.next_batch.clone();
                            self.absorb(response, since.as_deref(), cancel).await?;
                            since = Some(next);
                            self.synced = true;
                            self.lookup.answered();
                            backoff.reset();
                            Duration::ZERO
                        }
                        Err(NoAnswer::LeftOut) => return Err(Stop::Broken(LEFT_OUT.to_owned())),
                        Err(NoAnswer::NotKept(error)) => {
                            self.say_failing(&error);
                            return Err(Stop::Broken(error.to_string()));
                        }
                        Err(NoAnswer::Failed(error)) => {
                            let wait = backoff.next(error.retry());
                            self.say_failing(&error);
                            wait
                        }
                    };
                    syncing.spawn(self.ask(since.clone(), wait).in_current_span());
                }
                Some(page) = reading.join_next() => {
                    self.take_page(page.map_err(|error| broken(&error))?, cancel).await?;
                }
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => continue,
            }
            self.say_recording();
        }
    }

    /// Asks for what is new, after a while.
    fn ask(
        &self,
        since: Option<String>,
        wait: Duration,
    ) -> impl Future<Output = Result<SyncResponse, NoAnswer>> + use<> {
        let (client, syncing) = (self.session.client.clone(), self.session.syncing.clone());
        async move {
            tokio::time::sleep(wait).await;
            let _alone = syncing.lock().await;
            let settings = SyncSettings::new()
                .token(since.clone().map_or(SyncToken::NoToken, SyncToken::Specific))
                .filter(filter().into())
                .timeout(LONG_POLL)
                .set_presence(PresenceState::Offline);
            let known = client.state_store().get_kv_data(StateStoreDataKey::SyncToken).await;
            let known = known.ok().flatten().and_then(StateStoreDataValue::into_sync_token);
            let response = client.sync_once(settings).await.map_err(|error| match &error {
                matrix_sdk::Error::Http(_) => NoAnswer::Failed(classify(&error)),
                _ => NoAnswer::NotKept(classify(&error)),
            })?;
            let next = Some(&response.next_batch);
            if known.as_ref() == next && since.as_ref() != next {
                return Err(NoAnswer::LeftOut);
            }
            Ok(response)
        }
    }

    /// Records a response; the cursor moves with its last part.
    async fn absorb(
        &mut self,
        response: SyncResponse,
        since: Option<&str>,
        cancel: &CancellationToken,
    ) -> Result<(), Stop> {
        self.note_unreadable(&response.to_device);
        for (room, invited) in &response.rooms.invited {
            if let Ok(room) = RoomId::parse(room.as_str()) {
                let state = invited.invite_state.events.iter();
                let state = state.filter_map(|event| serde_json::from_str(event.json().get()).ok());
                self.presence.invited(&room, &state.collect::<Vec<_>>());
            }
        }
        let types =
            response.account_data.iter().filter_map(|event| event.get_field::<String>("type").ok()?);
        if since.is_some() && types.into_iter().any(|kind| concerns_identity(&kind)) {
            self.bell.notify_one();
        }
        let ciphertexts = ciphertext::of(&self.session.client, &self.lookup, &response, since);
        let mut ciphertexts = cancel.run_until_cancelled(ciphertexts).await.ok_or(Stop::Cancelled)?;
        let (recorder, lookup, presence) =
            (self.recorder.clone(), self.lookup.clone(), self.presence.clone());
        let bot = self.bot.clone();
        let media = self.media.clone();
        let mut collector =
            Collector::new(&recorder, &lookup, presence.as_ref(), &bot, self.scope, &media, cancel);
        let joined =
            response.rooms.joined.into_iter().map(|(room, update)| (room, update.state, update.timeline));
        let left =
            response.rooms.left.into_iter().map(|(room, update)| (room, update.state, update.timeline));
        let mut cursors = Vec::new();
        for (room, state, timeline) in joined.chain(left) {
            let is_current = matches!(state, State::After(_));
            let (State::Before(state) | State::After(state)) = state;
            let (mut told, mut told_state) = (Told::default(), Vec::new());
            // State after the timeline (MSC4222) has the timeline's events, which are recorded where they stand there.
            let once: HashSet<_> = timeline.events.iter().filter_map(TimelineEvent::event_id).collect();
            for event in state {
                let id: Option<OwnedEventId> = event.get_field("event_id").ok().flatten();
                let received = Received::plain(room.as_str(), event.into_json().as_ref());
                if id.is_none_or(|id| !once.contains(&id)) {
                    told.state(&received.raw, self.bot.as_str());
                    collector.take(&received, Arrival::New).await?;
                }
                told_state.push(received.raw);
            }
            let newest = timeline.events.iter().rev().find_map(TimelineEvent::event_id);
            if timeline.limited {
                self.lookup.unread.found(room.as_str(), recorder.size());
            }
            for event in &timeline.events {
                let cipher = event.event_id().and_then(|id| ciphertexts.remove(&id));
                let received = Received::from_timeline(room.as_str(), event, cipher);
                told.timeline(&received.raw, self.bot.as_str());
                let received = self.judge(received, cancel).await?;
                collector.take(&received, Arrival::New).await?;
            }
            let is_ignored = RoomId::parse(room.as_str()).is_ok_and(|room| presence.ignores(&room));
            let begins = told.begins;
            if self.scope == Scope::Everything && !is_ignored {
                cursors.extend(self.note_absence(&mut collector, room.as_str(), told, cancel).await?);
                self.note_resets(&mut collector, room.as_str(), &told_state, is_current, cancel).await?;
            }
            let last = last_event_cursor(room.as_str());
            // Where the bot was never before it did nothing. What was done to bring it there has records of its own.
            let is_known = self.scope == Scope::OwnActs && begins;
            if timeline.limited
                && !is_ignored
                && !is_known
                && let Some(from) = timeline.prev_batch
            {
                let until = recorder.cursor(&last, cancel).await?;
                let gap = Span::gap(room.as_str(), &from, until.as_deref(), since);
                cursors.extend(gap.into_iter().map(|span| self.spans.add(span)));
            }
            self.note_read(room.as_str());
            cursors.extend(newest.map(|newest| (last, newest.to_string())));
        }
        for (name, value) in cursors {
            collector.cursor(name, value);
        }
        collector.cursor(CURSOR, response.next_batch);
        collector.flush().await?;
        self.metrics.synced(recorder.clock().now());
        self.late_keys.retry(collector.incomplete);
        Ok(())
    }

    /// Says which messages to the bot's device could not be decrypted: nobody sends a key again that was lost with one.
    fn note_unreadable(&self, to_device: &[ProcessedToDeviceEvent]) {
        for event in to_device {
            if let ProcessedToDeviceEvent::UnableToDecrypt { encrypted_event, utd_info } = event {
                let sender: Option<String> = encrypted_event.get_field("sender").ok().flatten();
                self.metrics.unreadable_device_message();
                tracing::warn!(?sender, reason = ?utd_info.reason, "a message to the bot's device cannot be decrypted");
            }
        }
    }

    /// Records from when to when the bot was not in a room that it is in now.
    async fn note_absence(
        &self,
        collector: &mut Collector<'_>,
        room: &str,
        told: Told,
        cancel: &CancellationToken,
    ) -> Result<Option<(String, String)>, Stop> {
        let (created, steps) = (told.created, told.steps());
        if steps.is_empty() {
            return Ok(None);
        }
        let name = absence::cursor_name(room);
        let known = self.recorder.cursor(&name, cancel).await?;
        let mut attendance = Attendance::of(known.as_deref());
        for step in steps {
            match step {
                Step::Left { absence, .. } => attendance = Attendance::Away(absence),
                Step::Joined { come: false, .. } if attendance == Attendance::Here => {}
                Step::Joined { at_ms, event, .. } => {
                    let draft = records::absent(&self.bot_name, &event, self.recorder.clock().now());
                    collector.push(absence::complete(draft, room, &attendance, created, at_ms)).await?;
                    attendance = Attendance::Here;
                }
            }
        }
        Ok(Some((name, attendance.text())))
    }

    async fn judge(&self, received: Received, cancel: &CancellationToken) -> Result<Received, Stop> {
        cancel.run_until_cancelled(self.senders.judge(received)).await.ok_or(Stop::Cancelled)
    }

    fn say_failing(&mut self, error: &SessionError) {
        self.metrics.sync_error(error.category());
        tracing::warn!(category = error.category(), %error, "sync");
        let check = error.check();
        self.sources.set(Source::Rooms, Standing::Lagging(check.message.clone()));
        if error.ends_session() {
            self.board.set(|report| report.encryption = check);
        }
        self.synced = false;
    }
}
