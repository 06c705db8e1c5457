//! Keys that come after their events: what is pending is tried again, and its plaintext becomes a
//! record of its own.

use std::{collections::BTreeSet, sync::Arc};

use futures::StreamExt;
use matrix_sdk::{Client, ruma::RoomId as RumaRoomId};
use serde_json::value::RawValue;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{
    Scope,
    collector::Collector,
    lookup::Lookup,
    received::{Received, Secrecy, decrypt},
    senders::Senders,
};
use crate::{
    domain::{RoomId, UserId},
    store::PendingEvent,
    worker::{
        metrics::Metrics,
        ports::Presence,
        recorder::{Recorder, Stop},
    },
};

/// Events of a room that are tried at once.
const PAGE: u32 = 500;

/// Rooms in which something may be decryptable now.
#[derive(Clone, Default)]
pub(crate) struct Rooms {
    rooms: Arc<std::sync::Mutex<BTreeSet<RoomId>>>,
    wake: Arc<Notify>,
}

impl Rooms {
    /// Has these tried again.
    pub(crate) fn retry(&self, rooms: impl IntoIterator<Item = RoomId>) {
        let mut known = self.rooms.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let before = known.len();
        known.extend(rooms);
        if known.len() > before {
            self.wake.notify_one();
        }
    }

    async fn next(&self) -> RoomId {
        loop {
            let wake = self.wake.notified();
            let room = self.rooms.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop_first();
            match room {
                Some(room) => return room,
                None => wake.await,
            }
        }
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
                        .filter_map(|key| RoomId::parse(key.room_id.as_str()).ok())
                        .collect::<BTreeSet<_>>(),
                ),
                Err(lagged) => {
                    tracing::warn!(%lagged, "missed announcements of keys, trying every room");
                    self.rooms.retry(self.joined());
                }
            }
        }
        std::future::pending::<()>().await;
    }

    fn joined(&self) -> Vec<RoomId> {
        let rooms = self.client.joined_rooms();
        rooms.iter().filter_map(|room| RoomId::parse(room.room_id().as_str()).ok()).collect()
    }

    async fn retry_rooms(&self, cancel: &CancellationToken) -> Result<(), Stop> {
        // Keys may have come while nobody listened: between a crash and this start.
        let old = self.recorder.pending(None, PAGE, cancel).await?;
        self.rooms.retry(old.into_iter().map(|event| event.room_id).collect::<BTreeSet<_>>());
        loop {
            let room = self.rooms.next().await;
            self.retry_room(&room, cancel).await?;
        }
    }

    async fn retry_room(&self, room_id: &RoomId, cancel: &CancellationToken) -> Result<(), Stop> {
        let Some(room) = RumaRoomId::parse(room_id.as_str()).ok().and_then(|id| self.client.get_room(&id))
        else {
            return Ok(());
        };
        let pending = self.recorder.pending(Some(room_id), PAGE, cancel).await?;
        let mut collector = Collector::new(
            &self.recorder,
            &self.lookup,
            self.presence.as_ref(),
            &self.bot,
            self.scope,
            cancel,
        );
        let mut opened = 0;
        for event in pending {
            let Some(received) = self.open(&room, &event).await else { continue };
            collector.take(&received, true).await?;
            opened += 1;
        }
        collector.flush().await?;
        self.metrics.late_plaintexts(opened);
        if opened > 0 {
            tracing::info!(room = %room_id, events = opened, "decrypted events that were recorded before");
        }
        if opened >= PAGE as usize {
            self.rooms.retry([room_id.clone()]);
        }
        Ok(())
    }

    async fn open(&self, room: &matrix_sdk::Room, event: &PendingEvent) -> Option<Received> {
        let raw = RawValue::from_string(event.raw.clone()).ok()?;
        let received = self.senders.judge(decrypt(room, &raw, false).await).await;
        matches!(received.secrecy, Secrecy::Opened(_)).then_some(received)
    }
}
