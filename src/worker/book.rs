//! What coverage notes of rooms, in the database.

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::recorder::{Recorder, Stop};
use crate::{
    coverage::{BookError, RoomBook},
    domain::{RoomId, room::RoomNote},
    store::Batch,
};

/// So many notes are read at a time.
const PAGE: u32 = 2_000;

/// [`RoomBook`] in the database of the trail.
pub(crate) struct Book {
    recorder: Recorder,
    was_closed: AtomicBool,
}

/// Cursor that says when coverage has ended with everything noted; empty as long as that is of no worth.
const CLOSED: &str = "coverage:closed";
/// After a longer time the homeserver may be another one, from a backup for example.
const LONGEST_PAUSE_MS: i64 = 60 * 60 * 1000;

/// The cursor after which nobody believes that rooms are as they were noted.
pub(crate) fn reopened() -> (String, String) {
    (CLOSED.to_owned(), String::new())
}

/// What was seen at the very end is noted, too; coverage itself ends waiting for it.
fn nobody() -> CancellationToken {
    CancellationToken::new()
}

#[async_trait]
impl RoomBook for Book {
    async fn open(&self) -> Result<(Vec<RoomNote>, bool), BookError> {
        let mut all: Vec<RoomNote> = Vec::new();
        let cancel = nobody();
        loop {
            let after = all.last().map(|note| note.room_id.clone());
            let page = self.recorder.rooms(after.as_ref(), PAGE, &cancel).await;
            let page = page.map_err(|stop| BookError(Box::new(stop)))?;
            if page.is_empty() {
                return Ok((all, self.was_closed.swap(false, Ordering::Relaxed)));
            }
            all.extend(page);
        }
    }

    async fn write(&self, notes: &[RoomNote], gone: &[RoomId]) -> Result<(), BookError> {
        let written = self.recorder.note_rooms(notes, gone, &nobody()).await;
        written.map_err(|stop| BookError(Box::new(stop)))
    }

    async fn close(&self) -> Result<(), BookError> {
        let now = self.recorder.clock().now().as_millisecond().to_string();
        let closed = set(&self.recorder, (CLOSED.to_owned(), now), &nobody()).await;
        closed.map_err(|stop| BookError(Box::new(stop)))
    }
}

impl Book {
    /// Opens it: from now on it is not closed, since a process that is killed closes nothing. To be called before anything
    /// is captured; what sync has told nobody tells again.
    pub(crate) async fn open(recorder: Recorder, cancel: &CancellationToken) -> Result<Self, Stop> {
        let closed_at = recorder.cursor(CLOSED, cancel).await?.filter(|text| !text.is_empty());
        let Some(closed_at) = closed_at else {
            return Ok(Self { recorder, was_closed: AtomicBool::new(false) });
        };
        set(&recorder, reopened(), cancel).await?;
        let now = recorder.clock().now().as_millisecond();
        let pause = closed_at.parse().ok().map(|then: i64| now.saturating_sub(then));
        let was_closed = pause.is_some_and(|pause| (0..LONGEST_PAUSE_MS).contains(&pause));
        Ok(Self { recorder, was_closed: AtomicBool::new(was_closed) })
    }
}

async fn set(recorder: &Recorder, cursor: (String, String), cancel: &CancellationToken) -> Result<(), Stop> {
    let batch = Batch { cursors: vec![cursor], ..Batch::default() };
    recorder.append(&batch, cancel).await.map(drop)
}
