//! What must be known of rooms beyond the life of a process, and how it is written down.
//!
//! People ask where the bot stands in which room, and the next process must not post a notice a second time, nor enter the
//! bot again where a person took it out. Only what changed is written, at most once a second, and the loop does not wait
//! for it.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::{
    task::JoinSet,
    time::{Duration, Instant},
};
use tracing::Instrument as _;

use crate::domain::{RoomId, room::RoomNote};

/// Changes of this time are written together.
const TOGETHER: Duration = Duration::from_secs(1);
/// What could not be written is tried again after this.
const AGAIN: Duration = Duration::from_secs(5);
/// So many changes are written at a time.
pub(super) const MOST: usize = 1_000;

/// Rooms could not be noted, or what was noted not be read.
#[derive(Debug, thiserror::Error)]
#[error("what is known of rooms cannot be kept")]
pub struct BookError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// Keeps the notes; the worker's implementation has them in the trail's database.
#[async_trait]
pub trait RoomBook: Send + Sync {
    /// All of them, and whether they were closed a short while ago; that is said once.
    async fn open(&self) -> Result<(Vec<RoomNote>, bool), BookError>;
    /// Notes rooms, and forgets those that are gone: both or none.
    async fn write(&self, notes: &[RoomNote], gone: &[RoomId]) -> Result<(), BookError>;
    /// All is noted, and nothing more is done.
    async fn close(&self) -> Result<(), BookError>;
}

/// What is to be written together.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Changes {
    pub notes: Vec<RoomNote>,
    pub gone: Vec<RoomId>,
}

impl Changes {
    fn is_empty(&self) -> bool {
        self.notes.is_empty() && self.gone.is_empty()
    }
}

/// Writes one batch of changes at a time, until it is written.
pub(super) struct Scribe {
    book: Arc<dyn RoomBook>,
    writing: JoinSet<()>,
    not_before: Instant,
}

impl Scribe {
    pub(super) fn new(book: Arc<dyn RoomBook>, now: Instant) -> Self {
        Self { book, writing: JoinSet::new(), not_before: now }
    }

    pub(super) async fn open(&self) -> Result<(Vec<RoomNote>, bool), BookError> {
        self.book.open().await
    }

    /// Only to be called when it is free.
    pub(super) async fn close(&self) -> Result<(), BookError> {
        self.book.close().await
    }

    /// When it takes changes again; `None` while it writes.
    pub(super) fn free_at(&self) -> Option<Instant> {
        self.writing.is_empty().then_some(self.not_before)
    }

    /// Begins to write. Only to be called when it is free.
    pub(super) fn write(&mut self, changes: Changes, now: Instant) {
        if changes.is_empty() {
            return;
        }
        self.not_before = now + TOGETHER;
        let book = Arc::clone(&self.book);
        let write = async move {
            while let Err(error) = book.write(&changes.notes, &changes.gone).await {
                tracing::warn!(%error, "rooms cannot be noted");
                tokio::time::sleep(AGAIN).await;
            }
        };
        self.writing.spawn(write.in_current_span());
    }

    /// Returns when what is being written is written; never while nothing is.
    pub(super) async fn written(&mut self) {
        match self.writing.join_next().await {
            Some(Ok(())) => {}
            Some(Err(error)) => tracing::error!(%error, "noting rooms ended without a result"),
            None => std::future::pending().await,
        }
    }
}
