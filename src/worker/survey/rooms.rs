//! Rooms that an administrator deletes: nothing tells of it but that they are not there any more.

use std::collections::BTreeSet;

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{
    LookError, Survey,
    draft::{Span, seen},
};
use crate::{
    domain::{
        RoomId,
        record::{Category, Change, RecordDraft, Relation},
    },
    homeserver::HomeserverError,
    store::{Batch, Snapshot},
};

const SOURCE: &str = "room";
/// When the rooms were last looked at, in milliseconds since 1970.
const CURSOR: &str = "survey:rooms";
/// Keys that are read at a time.
const PAGE: u32 = 1_000;

impl Survey {
    /// Of the rooms that are or were recorded.
    pub(super) async fn deleted_rooms(&self, cancel: &CancellationToken) -> Result<(), LookError> {
        let span = Span::new(self.number(CURSOR, cancel).await?, self.now_ms());
        let known = self.known_rooms(cancel).await?;
        let listed = self.admin.rooms().await?.rooms;
        let recorded = self.recorded_rooms().await?;
        let mut batch =
            Batch { cursors: vec![(CURSOR.to_owned(), span.now.to_string())], ..Batch::default() };
        let there: BTreeSet<&str> = listed.iter().map(|room| room.room_id.as_str()).collect();
        for room in known.iter().filter(|room| !there.contains(room.as_str())) {
            if self.is_gone(room).await? {
                batch.drafts.push(deleted(room, span.until(self.now_ms())));
                batch.snapshots.push(Snapshot { source: SOURCE, key: room.clone(), value: None });
            }
        }
        for room in &listed {
            let key = room.room_id.to_string();
            let is_known = known.contains(&key);
            if is_known && self.presence.ignores(&room.room_id) {
                batch.snapshots.push(Snapshot { source: SOURCE, key, value: None });
            } else if !is_known && recorded.contains(&room.room_id) {
                let facts = json!({"creator": room.creator, "version": room.version, "type": room.room_type});
                batch.snapshots.push(Snapshot { source: SOURCE, key, value: Some(facts.to_string()) });
            }
        }
        self.recorder.append(&batch, cancel).await?;
        Ok(())
    }

    async fn known_rooms(&self, cancel: &CancellationToken) -> Result<BTreeSet<String>, LookError> {
        let mut known = BTreeSet::new();
        loop {
            let after = known.last().cloned();
            let page = self.recorder.snapshot_keys(SOURCE, after.as_deref(), PAGE, cancel).await?;
            if page.is_empty() {
                return Ok(known);
            }
            known.extend(page);
        }
    }

    /// The listing alone does not prove it: it leaves rooms out while the homeserver counts anew.
    async fn is_gone(&self, room: &str) -> Result<bool, LookError> {
        let Ok(room) = RoomId::parse(room) else { return Ok(false) };
        match self.admin.room_state(&room, Some("m.room.create")).await {
            Err(HomeserverError::NotFound { .. }) => Ok(true),
            // Without a state it is there all the same: its last member has left.
            Ok(_) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

fn deleted(room: &str, span: Span) -> RecordDraft {
    // A room of other homeservers can be deleted here, joined and deleted again.
    let id = format!("survey:room.deleted:{room}:{}", span.now);
    let mut draft = seen(id, Category::AdminOperation, "room.deleted", span);
    draft.relations.push(Relation::new("room", room, "in"));
    draft.changes = vec![Change {
        path: "/room/exists".to_owned(),
        before: Some(true.into()),
        after: Some(false.into()),
    }];
    draft
}
