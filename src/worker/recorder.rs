//! The only way into the trail: one batch at a time, tried again until the database has it.
//!
//! While the database is down the caller waits here, so nothing more is asked for that cannot be
//! recorded: the cursor stands still and memory is bounded by the batches and the answers under way.

mod conditions;

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use tokio::sync::{Mutex, Notify};
use tokio_util::sync::CancellationToken;

use self::conditions::{check, not_continuing};
use super::{backoff::Backoff, board::Board, metrics::Metrics};
use crate::{
    domain::{
        Clock, EventId, Failure, RoomId,
        filter::StoredRecord,
        record::{Place, RecordDraft},
        room::RoomNote,
        trail::TrailPoint,
        worker::Check,
    },
    store::{
        Appended, AttachmentTotals, AuditStore, Batch, InboxItem, MediaHash, MediaPlace, PendingPage,
        QueuedAttachment, StoreError, Turn,
    },
};

/// Why a part of the worker stops.
#[derive(Debug, thiserror::Error)]
pub enum Stop {
    /// It was asked to.
    #[error("asked to stop")]
    Cancelled,
    /// Another process writes this trail: this one must end.
    #[error("this process is no longer the sequencer of its trail")]
    LostSequencer,
    /// A part ended that should not have.
    #[error("{0}")]
    Broken(String),
}

/// Asks the database until it answers.
macro_rules! persistently {
    ($self:ident, $cancel:ident, $query:expr) => {{
        let mut backoff = Backoff::default();
        loop {
            match $query.await {
                Ok(value) => {
                    $self.answered(&backoff);
                    break Ok(value);
                }
                Err(error) => {
                    if let Err(stop) = $self.failed(&error, &mut backoff, $cancel).await {
                        break Err(stop);
                    }
                }
            }
        }
    }};
}

/// Appends to the trail.
#[derive(Clone)]
pub struct Recorder {
    store: Arc<dyn AuditStore>,
    clock: Arc<dyn Clock>,
    board: Board,
    metrics: Metrics,
    gate: Arc<Mutex<()>>,
    /// Rung when attachments were queued.
    queued: Arc<Notify>,
    /// Rung when something has come into the inbox by another way than before.
    pub(crate) came: Arc<Notify>,
}

impl Recorder {
    /// Over a store.
    pub fn new(store: Arc<dyn AuditStore>, clock: Arc<dyn Clock>, board: Board, metrics: Metrics) -> Self {
        Self {
            store,
            clock,
            board,
            metrics,
            gate: Arc::default(),
            queued: Arc::default(),
            came: Arc::default(),
        }
    }

    /// The clock that records are stamped with.
    pub fn clock(&self) -> &dyn Clock {
        self.clock.as_ref()
    }

    /// The same clock, to keep.
    pub(crate) fn shared_clock(&self) -> Arc<dyn Clock> {
        self.clock.clone()
    }

    /// Becomes the sequencer, and does not return before. A database that does not continue the
    /// promised trail is left alone; what to do stands in the condition. `promised` is asked again
    /// before each attempt.
    pub async fn open(
        &self,
        promised: impl Fn() -> Option<TrailPoint> + Send,
        cancel: &CancellationToken,
    ) -> Result<TrailPoint, Stop> {
        let mut backoff = Backoff::default();
        loop {
            let point = promised();
            match self.store.open(point.as_ref()).await {
                Ok(point) => {
                    self.good(&point);
                    return Ok(point);
                }
                Err(error) => self.failed(&error, &mut backoff, cancel).await?,
            }
        }
    }

    /// Makes a batch durable, and does not return before.
    pub async fn append(&self, batch: &Batch, cancel: &CancellationToken) -> Result<Appended, Stop> {
        let _one_at_a_time = self.gate.lock().await;
        let mut backoff = Backoff::default();
        loop {
            match self.store.append(batch, self.clock.now()).await {
                Ok(appended) => {
                    let size = appended.point.size;
                    self.metrics.appended(&batch.drafts, &appended.seqs, appended.opaque, size);
                    self.good(&appended.point);
                    if !batch.attachments.is_empty() {
                        self.queued.notify_one();
                    }
                    return Ok(appended);
                }
                Err(error) => self.failed(&error, &mut backoff, cancel).await?,
            }
        }
    }

    /// A cursor's value.
    pub async fn cursor(&self, name: &str, cancel: &CancellationToken) -> Result<Option<String>, Stop> {
        persistently!(self, cancel, self.store.cursor(name))
    }

    /// The record with this source id, if it has content.
    pub async fn find_by_source(
        &self,
        source_id: &str,
        cancel: &CancellationToken,
    ) -> Result<Option<RecordDraft>, Stop> {
        let found: Option<StoredRecord> = persistently!(self, cancel, self.store.find_by_source(source_id))?;
        Ok(found.and_then(|record| record.content))
    }

    /// What an event says now, or said before this place, as the trail has it.
    pub async fn latest_version(
        &self,
        event: &EventId,
        before: Option<&Place>,
        cancel: &CancellationToken,
    ) -> Result<Option<StoredRecord>, Stop> {
        persistently!(self, cancel, self.store.latest_version(event, before))
    }

    /// The newest record of what took the place of a state event in its room, as the trail has it.
    pub(crate) async fn replacement(
        &self,
        room: &RoomId,
        event: &EventId,
        cancel: &CancellationToken,
    ) -> Result<Option<StoredRecord>, Stop> {
        persistently!(self, cancel, self.store.replacement(room, event))
    }

    /// How many records the trail has, as far as this process knows.
    pub(crate) fn size(&self) -> Option<i64> {
        self.board.get().trail.map(|point| point.size)
    }

    /// A page of a room's events that miss their key.
    pub async fn pending(
        &self,
        room: &RoomId,
        after: Option<i64>,
        limit: u32,
        cancel: &CancellationToken,
    ) -> Result<PendingPage, Stop> {
        persistently!(self, cancel, self.store.pending(room, after, limit))
    }

    /// The rooms with such events.
    pub async fn pending_rooms(&self, cancel: &CancellationToken) -> Result<Vec<RoomId>, Stop> {
        persistently!(self, cancel, self.store.pending_rooms())
    }

    /// Number of events that miss their key, by reason.
    pub async fn pending_totals(&self, cancel: &CancellationToken) -> Result<Vec<(String, u64)>, Stop> {
        persistently!(self, cancel, self.store.pending_totals())
    }

    /// What a source showed last of these objects.
    pub async fn snapshots(
        &self,
        source: &'static str,
        keys: &[String],
        cancel: &CancellationToken,
    ) -> Result<BTreeMap<String, String>, Stop> {
        persistently!(self, cancel, self.store.snapshots(source, keys))
    }

    /// The objects of which a source showed anything, in order, after this one.
    pub async fn snapshot_keys(
        &self,
        source: &'static str,
        after: Option<&str>,
        limit: u32,
        cancel: &CancellationToken,
    ) -> Result<Vec<String>, Stop> {
        persistently!(self, cancel, self.store.snapshot_keys(source, after, limit))
    }

    /// A page of what is noted of rooms, in order, after this one.
    pub async fn rooms(
        &self,
        after: Option<&RoomId>,
        limit: u32,
        cancel: &CancellationToken,
    ) -> Result<Vec<RoomNote>, Stop> {
        persistently!(self, cancel, self.store.rooms(after, limit))
    }

    /// Notes where the bot stands in rooms, and forgets those that are gone.
    pub async fn note_rooms(
        &self,
        notes: &[RoomNote],
        gone: &[RoomId],
        cancel: &CancellationToken,
    ) -> Result<(), Stop> {
        persistently!(self, cancel, self.store.note_rooms(notes, gone))
    }

    /// Messages in the inbox.
    pub async fn inbox(&self, limit: u32, cancel: &CancellationToken) -> Result<Vec<InboxItem>, Stop> {
        persistently!(self, cancel, self.store.inbox(limit))
    }

    /// Resolves when attachments were queued since it was asked the last time.
    pub(crate) async fn attachments_queued(&self) {
        self.queued.notified().await;
    }

    /// Attachments that are due.
    pub(crate) async fn attachments(
        &self,
        now: Timestamp,
        turn: Turn,
        limit: u32,
        cancel: &CancellationToken,
    ) -> Result<Vec<QueuedAttachment>, Stop> {
        persistently!(self, cancel, self.store.attachments(now, turn, limit))
    }

    /// When the first attachment is due that is not due yet.
    pub(crate) async fn next_attachment(
        &self,
        now: Timestamp,
        cancel: &CancellationToken,
    ) -> Result<Option<Timestamp>, Stop> {
        persistently!(self, cancel, self.store.next_attachment(now))
    }

    /// How many attachments wait, and how many of them have failed so often.
    pub(crate) async fn attachment_totals(
        &self,
        failing: u32,
        cancel: &CancellationToken,
    ) -> Result<AttachmentTotals, Stop> {
        persistently!(self, cancel, self.store.attachment_totals(failing))
    }

    /// An attachment is to be tried again at this time.
    pub(crate) async fn postpone_attachment(
        &self,
        id: i64,
        until: Timestamp,
        failed: bool,
        cancel: &CancellationToken,
    ) -> Result<(), Stop> {
        persistently!(self, cancel, self.store.postpone_attachment(id, until, failed))
    }

    /// Whether a content is kept already.
    pub(crate) async fn has_media(
        &self,
        sha256: &MediaHash,
        cancel: &CancellationToken,
    ) -> Result<bool, Stop> {
        persistently!(self, cancel, self.store.has_media(sha256))
    }

    /// Keeps a content, in one attempt: the reason why the database does not take it may lie in the
    /// content, and others wait.
    pub(crate) async fn keep_media(
        &self,
        sha256: &MediaHash,
        size: u64,
        place: MediaPlace<'_>,
    ) -> Result<Result<(), StoreError>, Stop> {
        let kept = self.store.keep_media(sha256, size, place).await;
        if let Err(error) = &kept {
            self.metrics.database_error(error.category());
            if matches!(error, StoreError::LostSequencer) {
                return Err(Stop::LostSequencer);
            }
            tracing::warn!(
                category = error.category(), %error, sqlstate = error.sqlstate(),
                "a content of an attachment was not kept"
            );
        }
        Ok(kept)
    }

    fn good(&self, point: &TrailPoint) {
        self.board.set(|report| {
            report.database = Check::ok("Connected", "the trail's database takes records");
            report.integrity = Check::ok(
                "Continues",
                format!("the database continues the trail of epoch {} that was reported before", point.epoch),
            );
            report.trail = Some(point.clone());
        });
    }

    /// The database answers again what it did not: nothing has to be written before the condition says so.
    fn answered(&self, backoff: &Backoff) {
        if backoff.failures() > 0 {
            self.board.set(|report| {
                report.database = Check::ok("Connected", "the trail's database takes records");
            });
        }
    }

    async fn failed(
        &self,
        error: &StoreError,
        backoff: &mut Backoff,
        cancel: &CancellationToken,
    ) -> Result<(), Stop> {
        self.metrics.database_error(error.category());
        if matches!(error, StoreError::LostSequencer) {
            return Err(Stop::LostSequencer);
        }
        tracing::warn!(category = error.category(), %error, sqlstate = error.sqlstate(), "database");
        self.board.set(|report| {
            report.database = check(error);
            if let StoreError::NotContinuing(continuity) = error {
                report.integrity = not_continuing(continuity);
            }
        });
        if backoff.wait(error.retry(), cancel).await { Ok(()) } else { Err(Stop::Cancelled) }
    }
}
