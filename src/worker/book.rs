//! What coverage notes of rooms, in the database.

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::recorder::Recorder;
use crate::{
    coverage::{BookError, RoomBook},
    domain::{RoomId, room::RoomNote},
};

/// So many notes are read at a time.
const PAGE: u32 = 2_000;

/// [`RoomBook`] in the database of the trail.
pub(crate) struct Book {
    pub recorder: Recorder,
}

/// What was seen at the very end is noted, too; coverage itself ends waiting for it.
fn nobody() -> CancellationToken {
    CancellationToken::new()
}

#[async_trait]
impl RoomBook for Book {
    async fn read(&self) -> Result<Vec<RoomNote>, BookError> {
        let mut all: Vec<RoomNote> = Vec::new();
        let cancel = nobody();
        loop {
            let after = all.last().map(|note| note.room_id.clone());
            let page = self.recorder.rooms(after.as_ref(), PAGE, &cancel).await;
            let page = page.map_err(|stop| BookError(Box::new(stop)))?;
            if page.is_empty() {
                return Ok(all);
            }
            all.extend(page);
        }
    }

    async fn write(&self, notes: &[RoomNote], gone: &[RoomId]) -> Result<(), BookError> {
        let written = self.recorder.note_rooms(notes, gone, &nobody()).await;
        written.map_err(|stop| BookError(Box::new(stop)))
    }
}
