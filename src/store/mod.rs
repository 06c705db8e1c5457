//! The trail's database as a trait; the only implementation with sqlx is in `pg`.

pub mod derive;
pub mod pg;
pub mod platform;

use std::collections::BTreeMap;

use async_trait::async_trait;
use jiff::Timestamp;

use crate::domain::{
    EventId, Failure, Retry, RoomId,
    filter::{Page, PageRequest, SearchFilter, StoredRecord},
    record::{Place, RecordDraft},
    room::{RoomFilter, RoomNote},
    trail::{Continuity, TrailPoint},
};

/// An encrypted event whose key is still missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingEvent {
    /// The event.
    pub event_id: EventId,
    /// Its room.
    pub room_id: RoomId,
    /// The event as received, JSON text.
    pub raw: String,
    /// Why it could not be decrypted.
    pub reason: String,
}

/// Some of the events that miss their key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PendingPage {
    /// Oldest first.
    pub events: Vec<PendingEvent>,
    /// Where the next page starts; `None` if this is the last one.
    pub next: Option<i64>,
}

/// A message in the inbox of the trail, put there by another process.
#[derive(Debug, Clone, PartialEq)]
pub struct InboxItem {
    /// Its number in the inbox.
    pub id: i64,
    /// What it wants recorded.
    pub draft: RecordDraft,
    /// The source that an authentic message names; it is not that of its record.
    pub names: Option<String>,
}

/// What a source without events of its own shows of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The source, from a closed set.
    pub source: &'static str,
    /// The object, for example a user id.
    pub key: String,
    /// What it shows, JSON text; `None` forgets it.
    pub value: Option<String>,
}

/// An attachment of a message whose content is to be fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAttachment {
    /// Source id of the record of the message, which is in the same batch: where that was recorded
    /// before, its attachments were queued before.
    pub source_id: String,
    /// What whoever fetches it needs to know; the store does not look into it.
    pub wanted: String,
}

/// An attachment that waits to be fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuedAttachment {
    /// Its number in the queue.
    pub id: i64,
    /// What whoever fetches it needs to know.
    pub wanted: String,
    /// So many tries have failed.
    pub tries: u32,
    /// Since when it waits.
    pub queued_at: Timestamp,
}

/// How much waits to be fetched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AttachmentTotals {
    /// All attachments that wait.
    pub waiting: u64,
    /// Those of them that failed several times.
    pub failing: u64,
}

/// Which of the attachments that are due are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Those of which no try has failed.
    First,
    /// Those that failed before.
    Again,
}

/// A content is named by its SHA-256.
pub type MediaHash = [u8; 32];

/// Where a content is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaPlace<'a> {
    /// In the database, which is given it here.
    Database(&'a [u8]),
    /// In this bucket, which has it already.
    Bucket(&'a str),
}

/// What becomes durable together, or not at all.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    /// Records in the order of their numbers; those with a known source id are skipped.
    pub drafts: Vec<RecordDraft>,
    /// Cursors to set, by name (`matrix:sync`, `matrix:backfill:!room`, ...).
    pub cursors: Vec<(String, String)>,
    /// Events to try again when keys arrive, except those whose plaintext the trail has already.
    pub pending: Vec<PendingEvent>,
    /// Events whose plaintext is now recorded.
    pub resolved: Vec<EventId>,
    /// Inbox items that these drafts come from.
    pub drained: Vec<i64>,
    /// What the next look at a source is compared with.
    pub snapshots: Vec<Snapshot>,
    /// Attachments of the drafts' messages that are to be fetched.
    pub attachments: Vec<NewAttachment>,
    /// Attachments in the queue of which these drafts say what became of them.
    pub attended: Vec<i64>,
}

/// What an append did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// Where the trail stands now.
    pub point: TrailPoint,
    /// Numbers given, in the order of the drafts; `None` where the source id was known.
    pub seqs: Vec<Option<i64>>,
    /// Drafts that the database refused and that were stored as opaque instead.
    pub opaque: usize,
}

/// Why the store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be reached, or the connection broke.
    #[error("database is not reachable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The database refuses the user or password.
    #[error("database refuses the login")]
    Login(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No space left, or read-only.
    #[error("database cannot write")]
    Full(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The endpoint pools transactions, so that sessions do not keep what is set in them.
    #[error("database endpoint pools transactions; use one that pools sessions or none")]
    TransactionPooling,
    /// The schema is newer than this program knows.
    #[error(
        "schema is at version {found}, this program knows up to {known}; install a newer version of ems-bots"
    )]
    SchemaTooNew {
        /// Version in the database.
        found: i64,
        /// Newest version known.
        known: i64,
    },
    /// The schema is missing or older than this program needs.
    #[error("schema is at version {found:?}, this program needs {needed}; run `ems-bots migrate`")]
    SchemaTooOld {
        /// Version in the database, if there is a schema at all.
        found: Option<i64>,
        /// Version needed.
        needed: i64,
    },
    /// The owner may not create roles; the message holds the SQL that somebody who may has to run.
    #[error("database owner may not create roles; have an administrator run: {sql}")]
    MayNotCreateRoles {
        /// Statements without passwords.
        sql: String,
    },
    /// Another writer advanced the trail: this one must end.
    #[error("another writer advanced the trail; this process is no longer its sequencer")]
    LostSequencer,
    /// The database is not the continuation of what was promised.
    #[error("{0}")]
    NotContinuing(Continuity),
    /// A row that cannot be what this program wrote.
    #[error("inconsistent row in {table}: {problem}")]
    Inconsistent {
        /// Table.
        table: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// Anything else; a bug or an unknown condition of the database.
    #[error("database query failed")]
    Query(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl StoreError {
    /// What to check about it, for a person, where the message does not say.
    pub fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Login(_) => Some("check user, password and name of the database in its Secret"),
            Self::TransactionPooling => Some("of CloudNativePG: the `-rw` service"),
            Self::Unavailable(_) => Some(
                "check host, port, network policies and, for a certificate of a private authority, \
                 spec.database.caSecretRef",
            ),
            Self::Full(_) => Some("give the database more space, or connect to the primary"),
            Self::Query(_) => Some("look at the logs of the database"),
            Self::SchemaTooNew { .. }
            | Self::SchemaTooOld { .. }
            | Self::MayNotCreateRoles { .. }
            | Self::LostSequencer
            | Self::NotContinuing(_)
            | Self::Inconsistent { .. } => None,
        }
    }
}

impl Failure for StoreError {
    fn category(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "unavailable",
            Self::Login(_) => "login",
            Self::Full(_) => "full",
            Self::TransactionPooling => "transaction_pooling",
            Self::SchemaTooNew { .. } => "schema_too_new",
            Self::SchemaTooOld { .. } => "schema_too_old",
            Self::MayNotCreateRoles { .. } => "may_not_create_roles",
            Self::LostSequencer => "lost_sequencer",
            Self::NotContinuing(_) => "not_continuing",
            Self::Inconsistent { .. } => "inconsistent",
            Self::Query(_) => "query",
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::Unavailable(_)
            | Self::Login(_)
            | Self::Full(_)
            | Self::Query(_)
            | Self::SchemaTooOld { .. } => Retry::Backoff,
            Self::TransactionPooling
            | Self::SchemaTooNew { .. }
            | Self::MayNotCreateRoles { .. }
            | Self::LostSequencer
            | Self::NotContinuing(_)
            | Self::Inconsistent { .. } => Retry::Never,
        }
    }
}

/// The writer's side of a trail; only the worker has one.
#[async_trait]
pub trait AuditStore: Send + Sync {
    /// Checks the schema and compares the database with the promised point. Becomes the trail's
    /// sequencer (a new writer id in `head`), so that an older one fails at its next append.
    /// [`StoreError::NotContinuing`] leaves the database as it is.
    async fn open(&self, promised: Option<&TrailPoint>) -> Result<TrailPoint, StoreError>;
    /// Writes a batch in one transaction.
    async fn append(&self, batch: &Batch, recorded_at: Timestamp) -> Result<Appended, StoreError>;
    /// Where the trail stands.
    async fn head(&self) -> Result<TrailPoint, StoreError>;
    /// A cursor's value.
    async fn cursor(&self, name: &str) -> Result<Option<String>, StoreError>;
    /// The record with this source id, if there is one with content.
    async fn find_by_source(&self, source_id: &str) -> Result<Option<StoredRecord>, StoreError>;
    /// The newest record that has a relation (`event`, `event_id`, `replaces`) by the same author, of those
    /// before this place if there is one, or else the record of the event itself with its plaintext: what
    /// an edit replaces there.
    async fn latest_version(
        &self,
        event_id: &EventId,
        before: Option<&Place>,
    ) -> Result<Option<StoredRecord>, StoreError>;
    /// The newest record of this room that has a relation (`event`, `event_id`, `replaces_state`).
    async fn replacement(
        &self,
        room: &RoomId,
        event_id: &EventId,
    ) -> Result<Option<StoredRecord>, StoreError>;
    /// A page of the events of a room that still miss their key, from where the page before says.
    async fn pending(&self, room: &RoomId, after: Option<i64>, limit: u32)
    -> Result<PendingPage, StoreError>;
    /// The rooms of all such events.
    async fn pending_rooms(&self) -> Result<Vec<RoomId>, StoreError>;
    /// Number of events that still miss their key, by reason.
    async fn pending_totals(&self) -> Result<Vec<(String, u64)>, StoreError>;
    /// What a source showed last of these objects, by key; unknown ones are missing.
    async fn snapshots(
        &self,
        source: &'static str,
        keys: &[String],
    ) -> Result<BTreeMap<String, String>, StoreError>;
    /// The objects of which a source showed anything, in order, after this one.
    async fn snapshot_keys(
        &self,
        source: &'static str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<String>, StoreError>;
    /// A page of what is noted of rooms, in order, after this one.
    async fn rooms(&self, after: Option<&RoomId>, limit: u32) -> Result<Vec<RoomNote>, StoreError>;
    /// Notes where the bot stands in rooms, and forgets those that are gone: both or none.
    async fn note_rooms(&self, notes: &[RoomNote], gone: &[RoomId]) -> Result<(), StoreError>;
    /// The oldest messages in the inbox: at most so many, and fewer where they are large.
    async fn inbox(&self, limit: u32) -> Result<Vec<InboxItem>, StoreError>;
    /// The attachments of this turn that are due, those that waited longest first.
    async fn attachments(
        &self,
        now: Timestamp,
        turn: Turn,
        limit: u32,
    ) -> Result<Vec<QueuedAttachment>, StoreError>;
    /// When the first of those is due that are not due yet.
    async fn next_attachment(&self, now: Timestamp) -> Result<Option<Timestamp>, StoreError>;
    /// How many there are, and how many of them have failed so often. Looks at all of them.
    async fn attachment_totals(&self, failing: u32) -> Result<AttachmentTotals, StoreError>;
    /// An attachment could not be fetched: it is tried again at this time. `failed`: the try counts.
    async fn postpone_attachment(&self, id: i64, until: Timestamp, failed: bool) -> Result<(), StoreError>;
    /// Whether this content is kept already, wherever that is.
    async fn has_media(&self, sha256: &MediaHash) -> Result<bool, StoreError>;
    /// Keeps a content, once.
    async fn keep_media(
        &self,
        sha256: &MediaHash,
        size: u64,
        place: MediaPlace<'_>,
    ) -> Result<(), StoreError>;
}

/// The reader's side.
#[async_trait]
pub trait AuditReader: Send + Sync {
    /// Records that match, newest first.
    async fn search(
        &self,
        filter: &SearchFilter,
        page: PageRequest,
    ) -> Result<Page<StoredRecord>, StoreError>;
    /// A page of what is noted of rooms, in order, after this one.
    async fn rooms(
        &self,
        filter: &RoomFilter,
        after: Option<&RoomId>,
        limit: u32,
    ) -> Result<Vec<RoomNote>, StoreError>;
    /// Where the trail stands.
    async fn head(&self) -> Result<TrailPoint, StoreError>;
}
