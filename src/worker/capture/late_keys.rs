//! Keys that come after their events: what is pending is tried again, and its plaintext becomes a
//! record of its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::StreamExt;
use matrix_sdk::{Client, ruma::RoomId as RumaRoomId};
use serde_json::value::RawValue;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{
    Scope,
    collector::{Arrival, Collector},
    lookup::Lookup,
    received::{Received, Secrecy, decrypt, session_of},
    senders::Senders,
};
use crate::{
    domain::{Failure, RoomId, UserId},
    store::PendingEvent,
    worker::{
        backoff::Backoff,
        media::Wants,
        metrics::Metrics,
        ports::Presence,
        recorder::{Recorder, Stop},
        session::SessionError,
    },
};

/// Events that are held in memory at once.
const PAGE: u32 = 500;

/// What may be decryptable now in a room: events of these sessions, or (`None`) of any.
type Wanted = Option<BTreeSet<String>>;

#[derive(Default)]
struct Queue {
    rooms: BTreeMap<RoomId, Wanted>,
    trouble: Option<String>,
}

/// Rooms in which something may be decryptable now.
#[derive(Clone, Default)]
pub(crate) struct Rooms {
    queue: Arc<Mutex<Queue>>,
    wake: Arc<Notify>,
}

impl Rooms {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has events of these rooms and sessions tried again; without a session all of the room.
    pub(crate) fn retry(&self, wanted: impl IntoIterator<Item = (RoomId, Option<String>)>) {
        let mut queue = self.queue();
        for (room, session) in wanted {
            let known = queue.rooms.entry(room).or_insert_with(|| Some(BTreeSet::new()));
            match (known.as_mut(), session) {
                (Some(sessions), Some(session)) => drop(sessions.insert(session)),
                _ => *known = None,
            }
        }
        if !queue.rooms.is_empty() {
            self.wake.notify_one();
        }
    }

    async fn next(&self) -> (RoomId, Wanted) {
        loop {
            let wake = self.wake.notified();
            let next = self.queue().rooms.pop_first();
            match next {
                Some(next) => return next,
                None => wake.await,
            }
        }
    }

    /// Why nothing can be tried, if so.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.queue().trouble.clone()
    }
}

/// The part of the worker that does it.
pub(crate) struct LateKeys {
    pub(crate) client: Client,
    pub(crate) recorder: Recorder,
    pub(crate) lookup: Lookup,
    pub(crate) senders: Senders,
    pub(crate) presence: Arc<dyn Presence>,
    pub(crate) bot: UserId,
    pub(crate) scope: Scope,
    pub(crate) media: Wants,
    pub(crate) metrics: Metrics,
    pub(crate) rooms: Rooms,
}

impl LateKeys {
    /// Runs until cancelled, or until this process must end.
    pub(crate) async fn run(self, cancel: CancellationToken) -> Result<(), Stop> {
        let result = tokio::select! {
            result = self.retry_rooms(&cancel) => result,
            () = self.listen() => Ok(()),
            () = cancel.cancelled() => Ok(()),
        };
        match result {
            Err(Stop::Cancelled) => Ok(()),
            other => other,
        }
    }

    /// Every key that arrives, by whatever way, is announced here by the crypto store.
    async fn listen(&self) {
        let Some(stream) = self.client.encryption().room_keys_received_stream().await else {
            return std::future::pending().await;
        };
        let mut stream = std::pin::pin!(stream);
        while let Some(keys) = stream.next().await {
            match keys {
                Ok(keys) => self.rooms.retry(
                    keys.iter()
                        .filter_map(|key| {
                            Some((RoomId::parse(key.room_id.as_str()).ok()?, Some(key.session_id.clone())))
                        })
                        .collect::<Vec<_>>(),
                ),
                Err(lagged) => {
                    tracing::warn!(%lagged, "missed announcements of keys, trying every room");
                    self.rooms.retry(self.joined());
                }
            }
        }
        std::future::pending::<()>().await;
    }

    fn joined(&self) -> Vec<(RoomId, Option<String>)> {
        let rooms = self.client.joined_rooms();
        rooms.iter().filter_map(|room| Some((RoomId::parse(room.room_id().as_str()).ok()?, None))).collect()
    }

    async fn retry_rooms(&self, cancel: &CancellationToken) -> Result<(), Stop> {
        // Keys may have come while nobody listened: between a crash and this start.
        let old = self.recorder.pending_rooms(cancel).await?;
        self.rooms.retry(old.into_iter().map(|room| (room, None)));
        let mut backoff = Backoff::default();
        loop {
            let (room, wanted) = self.rooms.next().await;
            let failed = self.retry_room(&room, wanted.as_ref(), cancel).await?;
            self.rooms.queue().trouble = failed.as_ref().map(ToString::to_string);
            let Some(error) = failed else {
                backoff.reset();
                continue;
            };
            tracing::warn!(category = error.category(), %error, "cannot try to decrypt events");
            if !backoff.wait(error.retry(), cancel).await {
                return Err(Stop::Cancelled);
            }
            self.rooms.retry([(room, None)]);
        }
    }

    /// Tries all that wait in a room, page by page. The result is why that cannot be done now, if so.
    async fn retry_room(
        &self,
        room_id: &RoomId,
        wanted: Option<&BTreeSet<String>>,
        cancel: &CancellationToken,
    ) -> Result<Option<SessionError>, Stop> {
        let Some(room) = RumaRoomId::parse(room_id.as_str()).ok().and_then(|id| self.client.get_room(&id))
        else {
            return Ok(None);
        };
        let mut collector = Collector::new(
            &self.recorder,
            &self.lookup,
            self.presence.as_ref(),
            &self.bot,
            self.scope,
            &self.media,
            cancel,
        );
        let (mut opened, mut after) = (0, None);
        let failed = loop {
            let page = self.recorder.pending(room_id, after, PAGE, cancel).await?;
            let (tried, failed) = self.open_all(&room, &page.events, wanted).await;
            opened += tried.len();
            for received in &tried {
                collector.take(received, Arrival::Late).await?;
            }
            after = page.next;
            if after.is_none() || failed.is_some() {
                break failed;
            }
        };
        collector.flush().await?;
        self.metrics.late_plaintexts(opened);
        if opened > 0 {
            tracing::info!(room = %room_id, events = opened, "decrypted events that were recorded before");
        }
        Ok(failed)
    }

    /// The events that are open now, as far as that could be tried.
    async fn open_all(
        &self,
        room: &matrix_sdk::Room,
        events: &[PendingEvent],
        wanted: Option<&BTreeSet<String>>,
    ) -> (Vec<Received>, Option<SessionError>) {
        let is_wanted = |event: &PendingEvent| {
            wanted.is_none_or(|wanted| session_of(&event.raw).is_none_or(|session| wanted.contains(&session)))
        };
        let mut opened = Vec::new();
        for event in events.iter().filter(|event| is_wanted(event)) {
            match self.open(room, event).await {
                Ok(received) => opened.extend(received),
                Err(error) => return (opened, Some(error)),
            }
        }
        (opened, None)
    }

    async fn open(
        &self,
        room: &matrix_sdk::Room,
        event: &PendingEvent,
    ) -> Result<Option<Received>, SessionError> {
        let Ok(raw) = RawValue::from_string(event.raw.clone()) else { return Ok(None) };
        let received = self.senders.judge(decrypt(room, &raw, false).await?).await;
        Ok(matches!(received.secrecy, Secrecy::Opened(_)).then_some(received))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sessions_of_a_room_are_gathered_and_all_of_it_is_more() {
        let rooms = Rooms::default();
        let room = |id: &str| RoomId::parse(id).unwrap();
        let some = |id: &str| Some(id.to_owned());
        rooms.retry([(room("!a"), some("1")), (room("!b"), some("1")), (room("!a"), some("2"))]);
        rooms.retry([(room("!b"), None), (room("!b"), some("2"))]);
        assert_eq!(rooms.next().await, (room("!a"), Some(BTreeSet::from(["1".to_owned(), "2".to_owned()]))));
        assert_eq!(rooms.next().await, (room("!b"), None));
    }
}
