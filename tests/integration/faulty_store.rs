//! A real store that fails, loses its answer or kills the process at one write of a test's choice.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use ems_bots::{
    domain::{EventId, RoomId, filter::StoredRecord, record::Place, room::RoomNote, trail::TrailPoint},
    store::{
        Appended, AttachmentTotals, AuditStore, Batch, InboxItem, MediaHash, MediaPlace, PendingPage,
        QueuedAttachment, StoreError, Turn, pg::PgStore,
    },
};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

/// In place of a cursor's value: the batch that says what became of an attachment.
pub(crate) const ATTENDED: &str = "<attended>";
/// In place of a cursor's value: any content of this many bytes, which the database does not take.
pub(crate) const INDIGESTIBLE: (&str, u64) = ("<indigestible>", 666);

/// In place of a cursor's value: the batch that says how the sources stand.
pub(crate) const SOURCES: &str = "worker:sources";

/// What happens to the batch that moves a cursor of Matrix to a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The database was not reached, so many times.
    Unreachable(u32),
    /// It is written, but the answer is lost.
    AnswerLost,
    /// The process is killed before it is written.
    KilledBefore,
    /// The process is killed when it is written.
    KilledAfter,
}

/// What the store sees of the one who uses it.
#[derive(Default)]
pub(crate) struct Seen {
    /// The tasks that follow /sync, and look for earlier versions of what they record.
    pub(crate) capture: Mutex<HashSet<tokio::task::Id>>,
    /// Every cursor that was set, in order.
    pub(crate) cursors: Mutex<Vec<(String, String)>>,
    /// How often the attachments that wait were counted.
    pub(crate) counted: Mutex<usize>,
    /// How often it was told whether a record is there.
    pub(crate) looked: Mutex<usize>,
}

/// The real store with one fault.
pub(crate) struct FaultyStore {
    pub(crate) inner: PgStore,
    pub(crate) fault: Mutex<Option<(String, Fault)>>,
    /// Cancelled when the process is to be killed.
    pub(crate) killed: CancellationToken,
    pub(crate) seen: Arc<Seen>,
}

impl FaultyStore {
    /// The fault that is due at this batch.
    fn due(&self, batch: &Batch) -> Option<Fault> {
        let mut fault = self.fault.lock().unwrap();
        let (value, kind) = fault.clone()?;
        let of_matrix = |name: &str| name.starts_with("matrix:");
        let moves = |(name, set): &(String, String)| {
            (of_matrix(name) && set.contains(&value)) || (value == SOURCES && name == SOURCES)
        };
        let attends = value == ATTENDED && !batch.attended.is_empty();
        if !attends && !batch.cursors.iter().any(moves) {
            return None;
        }
        *fault = match kind {
            Fault::Unreachable(times) if times > 1 => Some((value, Fault::Unreachable(times - 1))),
            _ => None,
        };
        Some(kind)
    }

    async fn dies(&self) -> ! {
        self.killed.cancel();
        std::future::pending().await
    }
}

fn unreachable() -> StoreError {
    StoreError::Unavailable("a fault of the test".into())
}

#[async_trait]
impl AuditStore for FaultyStore {
    async fn open(&self, promised: Option<&TrailPoint>) -> Result<TrailPoint, StoreError> {
        self.inner.open(promised).await
    }

    async fn append(&self, batch: &Batch, recorded_at: Timestamp) -> Result<Appended, StoreError> {
        match self.due(batch) {
            None => {
                let appended = self.inner.append(batch, recorded_at).await?;
                self.seen.cursors.lock().unwrap().extend(batch.cursors.clone());
                Ok(appended)
            }
            Some(Fault::Unreachable(_)) => Err(unreachable()),
            Some(Fault::AnswerLost) => {
                self.inner.append(batch, recorded_at).await?;
                Err(unreachable())
            }
            Some(Fault::KilledBefore) => self.dies().await,
            Some(Fault::KilledAfter) => {
                self.inner.append(batch, recorded_at).await?;
                self.dies().await
            }
        }
    }

    async fn head(&self) -> Result<TrailPoint, StoreError> {
        self.inner.head().await
    }

    async fn cursor(&self, name: &str) -> Result<Option<String>, StoreError> {
        if name == "matrix:sync" {
            self.seen.capture.lock().unwrap().extend(tokio::task::try_id());
        }
        self.inner.cursor(name).await
    }

    async fn rooms(&self, after: Option<&RoomId>, limit: u32) -> Result<Vec<RoomNote>, StoreError> {
        self.inner.rooms(after, limit).await
    }

    async fn note_rooms(&self, notes: &[RoomNote], gone: &[RoomId]) -> Result<(), StoreError> {
        self.inner.note_rooms(notes, gone).await
    }

    async fn find_by_source(&self, source_id: &str) -> Result<Option<StoredRecord>, StoreError> {
        let found = self.inner.find_by_source(source_id).await;
        *self.seen.looked.lock().unwrap() += 1;
        found
    }

    async fn latest_version(
        &self,
        event_id: &EventId,
        before: Option<&Place>,
    ) -> Result<Option<StoredRecord>, StoreError> {
        self.seen.capture.lock().unwrap().extend(tokio::task::try_id());
        self.inner.latest_version(event_id, before).await
    }

    async fn replacement(
        &self,
        room: &RoomId,
        event_id: &EventId,
    ) -> Result<Option<StoredRecord>, StoreError> {
        self.seen.capture.lock().unwrap().extend(tokio::task::try_id());
        self.inner.replacement(room, event_id).await
    }

    async fn pending(
        &self,
        room: &RoomId,
        after: Option<i64>,
        limit: u32,
    ) -> Result<PendingPage, StoreError> {
        self.inner.pending(room, after, limit).await
    }

    async fn pending_rooms(&self) -> Result<Vec<RoomId>, StoreError> {
        self.inner.pending_rooms().await
    }

    async fn pending_totals(&self) -> Result<Vec<(String, u64)>, StoreError> {
        self.inner.pending_totals().await
    }

    async fn snapshots(
        &self,
        source: &'static str,
        keys: &[String],
    ) -> Result<BTreeMap<String, String>, StoreError> {
        self.inner.snapshots(source, keys).await
    }

    async fn snapshot_keys(
        &self,
        source: &'static str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<String>, StoreError> {
        self.inner.snapshot_keys(source, after, limit).await
    }

    async fn inbox(&self, limit: u32) -> Result<Vec<InboxItem>, StoreError> {
        self.inner.inbox(limit).await
    }

    async fn attachments(
        &self,
        now: Timestamp,
        turn: Turn,
        limit: u32,
    ) -> Result<Vec<QueuedAttachment>, StoreError> {
        self.inner.attachments(now, turn, limit).await
    }

    async fn next_attachment(&self, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        self.inner.next_attachment(now).await
    }

    async fn attachment_totals(&self, failing: u32) -> Result<AttachmentTotals, StoreError> {
        *self.seen.counted.lock().unwrap() += 1;
        self.inner.attachment_totals(failing).await
    }

    async fn postpone_attachment(&self, id: i64, until: Timestamp, failed: bool) -> Result<(), StoreError> {
        self.inner.postpone_attachment(id, until, failed).await
    }

    async fn has_media(&self, sha256: &MediaHash) -> Result<bool, StoreError> {
        self.inner.has_media(sha256).await
    }

    async fn keep_media(
        &self,
        sha256: &MediaHash,
        size: u64,
        place: MediaPlace<'_>,
    ) -> Result<(), StoreError> {
        let (indigestible, length) = INDIGESTIBLE;
        let is_due = self.fault.lock().unwrap().as_ref().is_some_and(|(value, _)| value == indigestible);
        if is_due && size == length {
            return Err(StoreError::Query("a fault of the test".into()));
        }
        self.inner.keep_media(sha256, size, place).await
    }
}
