//! Uploads, and what administrators put into quarantine.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{
    LookError, Survey,
    draft::{Span, new_value, seen, subject},
};
use crate::{
    domain::record::{Actor, Category, Change, Occurred, RecordDraft, Relation},
    homeserver::{HomeserverError, MediaUpload, QuarantineChange},
    store::Batch,
};

/// Up to when uploads were read, in milliseconds since 1970.
const UPLOADS: &str = "survey:uploads";
/// How far the changes of the quarantine were read.
const QUARANTINE: &str = "survey:quarantine";
/// The homeserver's clock may be another one: so much is read again. What is known is not recorded twice.
const OVERLAP_MS: i64 = 10 * 60_000;

/// See [`QUARANTINE`].
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Position {
    after: u64,
    at: i64,
    /// So often the homeserver's own position was found behind this one, as after a restore of its database.
    #[serde(default)]
    restarts: u32,
}

/// It does not know a position that it gave out itself.
fn is_behind(error: &HomeserverError) -> bool {
    matches!(error, HomeserverError::Refused { errcode, .. } if errcode == "M_INVALID_PARAM")
}

impl Survey {
    /// Uploads since recording began.
    pub(super) async fn uploads(&self, cancel: &CancellationToken) -> Result<(), LookError> {
        let now = self.now_ms();
        if let Some(before) = self.number(UPLOADS, cancel).await? {
            let since = before.saturating_sub(OVERLAP_MS);
            let mut from = 0;
            loop {
                let page = self.inspect.uploaders(since, from).await?;
                for user in &page.rows {
                    self.uploads_of(user, since, cancel).await?;
                }
                match page.next {
                    Some(next) => from = next,
                    None => break,
                }
            }
        }
        let cursors = vec![(UPLOADS.to_owned(), now.to_string())];
        self.recorder.append(&Batch { cursors, ..Batch::default() }, cancel).await?;
        Ok(())
    }

    async fn uploads_of(&self, user: &str, since: i64, cancel: &CancellationToken) -> Result<(), LookError> {
        let server = self.bot.server_name().to_string();
        let mut from = 0;
        loop {
            let page = self.inspect.uploads(user, from).await?;
            let is_new = |file: &MediaUpload| file.created_ms >= since;
            let all_new = page.rows.iter().all(is_new);
            let uploads = page.rows.iter().filter(|file| is_new(file) && !file.is_preview);
            let drafts: Vec<_> = uploads.map(|file| uploaded(&server, user, file)).collect();
            if !drafts.is_empty() {
                self.recorder.append(&Batch { drafts, ..Batch::default() }, cancel).await?;
            }
            match page.next.filter(|_| all_new) {
                Some(next) => from = next,
                None => return Ok(()),
            }
        }
    }

    /// All changes that the homeserver remembers.
    pub(super) async fn quarantine(&self, cancel: &CancellationToken) -> Result<(), LookError> {
        let known = self.recorder.cursor(QUARANTINE, cancel).await?;
        let known: Option<Position> = known.and_then(|text| serde_json::from_str(&text).ok());
        let span = Span::new(known.map(|known| known.at), self.now_ms());
        let Position { mut after, mut restarts, .. } =
            known.unwrap_or(Position { after: 0, at: span.now, restarts: 0 });
        loop {
            let (changes, next) = match self.inspect.quarantine(after).await {
                Err(error) if after > 0 && is_behind(&error) => {
                    tracing::warn!(after, "the homeserver's list of quarantined media begins anew");
                    (after, restarts) = (0, restarts + 1);
                    continue;
                }
                answer => answer?,
            };
            let span = span.until(self.now_ms());
            let drafts: Vec<_> = changes
                .iter()
                .enumerate()
                .map(|(at, change)| quarantined(change, &format!("{restarts}:{after}:{at}"), span))
                .collect();
            let is_end = drafts.is_empty();
            let position = Position { after: next, at: span.now, restarts };
            let position = serde_json::to_string(&position).unwrap_or_default();
            let cursors = vec![(QUARANTINE.to_owned(), position)];
            self.recorder.append(&Batch { drafts, cursors, ..Batch::default() }, cancel).await?;
            if is_end || next <= after {
                return Ok(());
            }
            after = next;
        }
    }
}

fn uploaded(server: &str, user: &str, file: &MediaUpload) -> RecordDraft {
    let uri = format!("mxc://{server}/{}", file.media);
    let span = Span::new(None, file.created_ms);
    let mut draft = seen(format!("survey:media:{uri}"), Category::UserActivity, "media.uploaded", span);
    draft.occurred = Occurred::At(file.created_ms);
    draft.actor = Actor::matrix(user);
    draft.relations.push(Relation::new("media", &uri, "target"));
    draft.relations.push(Relation::new("user", user, "actor"));
    draft.subjects.push(subject(user, "actor"));
    draft.text.clone_from(&file.name);
    let facts = [
        ("/media/name", file.name.clone().map(Value::from)),
        ("/media/type", file.content_type.clone().map(Value::from)),
        ("/media/length", file.length.map(Value::from)),
    ];
    draft.changes = facts.into_iter().filter_map(|(path, value)| Some(new_value(path, value?))).collect();
    draft
}

fn quarantined(change: &QuarantineChange, position: &str, span: Span) -> RecordDraft {
    let uri = format!("mxc://{}/{}", change.origin, change.media);
    let action = if change.quarantined { "media.quarantined" } else { "media.quarantine_lifted" };
    let id = format!("survey:quarantine:{uri}:{position}");
    let mut draft = seen(id, Category::AdminOperation, action, span);
    draft.relations.push(Relation::new("media", &uri, "target"));
    draft.changes = vec![Change {
        path: "/media/quarantined".to_owned(),
        before: Some((!change.quarantined).into()),
        after: Some(change.quarantined.into()),
    }];
    draft
}
