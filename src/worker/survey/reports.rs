//! Reports of events and users to the homeserver's administrators: all of them at first, then the newest ones until some
//! are known that are older than a week, and all of them again when the bot has come into a room of which some were left
//! aside. Neither their order nor their numbers can be relied on: a report is listed once its room is counted, and after a
//! restart the homeserver may give out the number of a deleted report again.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    LookError, Survey,
    draft::{Span, seen, subject},
};
use crate::{
    domain::{
        RoomId,
        record::{Actor, Category, Occurred, RecordDraft, Relation},
    },
    homeserver::{Report, Rows},
    store::{Batch, Snapshot},
};

/// What is reported.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Event,
    User,
}

impl Kind {
    fn action(self) -> &'static str {
        match self {
            Self::Event => "report.event_filed",
            Self::User => "report.user_filed",
        }
    }

    fn key(self, report: &Report) -> String {
        let kind = match self {
            Self::Event => "event",
            Self::User => "user",
        };
        format!("{kind}:{}:{}", report.id, report.received_ms.unwrap_or(0))
    }
}

/// The reports that are recorded.
const SOURCE: &str = "report";
/// So late a report may be listed.
const OVERLAP_MS: i64 = 7 * 24 * 3_600_000;
/// All of them are read so often at most: while the bot comes into many rooms, it could be at every look.
const WHOLE_EVERY: Duration = Duration::from_mins(10);

/// Rooms of which a report was left aside since nothing of them is recorded.
#[derive(Debug)]
struct LeftAside {
    rooms: BTreeSet<RoomId>,
    /// When all reports were read last.
    whole_at: Instant,
}

/// What was left aside of each kind of report. Unknown until all were read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Aside(Arc<Mutex<[Option<LeftAside>; 2]>>);

impl Aside {
    /// From here on it is unknown again, until it is kept: what is not read to its end is read anew.
    fn take(&self, kind: Kind) -> Option<LeftAside> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)[kind as usize].take()
    }

    fn keep(&self, kind: Kind, aside: LeftAside) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)[kind as usize] = Some(aside);
    }
}

impl Survey {
    /// All reports of events that the homeserver has, but those in rooms that are not recorded. Where the bot comes in later,
    /// they are found then.
    pub(super) async fn event_reports(&self, cancel: &CancellationToken) -> Result<(), LookError> {
        self.reports_of(Kind::Event, cancel).await
    }

    /// All reports of users. Older homeservers do not offer them.
    pub(super) async fn user_reports(&self, cancel: &CancellationToken) -> Result<(), LookError> {
        self.reports_of(Kind::User, cancel).await
    }

    async fn reports_of(&self, kind: Kind, cancel: &CancellationToken) -> Result<(), LookError> {
        let now = Instant::now();
        let known = match self.aside.take(kind) {
            Some(known) if self.is_whole_due(&known, now).await? => None,
            known => known,
        };
        let is_whole = known.is_none();
        let mut aside = known.unwrap_or(LeftAside { rooms: BTreeSet::new(), whole_at: now });
        let mut from = 0;
        loop {
            let page: Rows<Report> = match kind {
                Kind::Event => self.inspect.event_reports(from).await?,
                Kind::User => self.inspect.user_reports(from).await?,
            };
            let has_new = self.file(kind, &page.rows, &mut aside.rooms, cancel).await?;
            let since = self.now_ms().saturating_sub(OVERLAP_MS);
            let is_recent = page.rows.iter().any(|report| report.received_ms.is_none_or(|at| at > since));
            match page.next.filter(|_| is_whole || is_recent || has_new) {
                Some(next) => from = next,
                None => break,
            }
        }
        self.aside.keep(kind, aside);
        Ok(())
    }

    /// Whether the bot has come into one of the rooms, where reports of any age may wait.
    async fn is_whole_due(&self, known: &LeftAside, now: Instant) -> Result<bool, LookError> {
        if known.rooms.is_empty() || now < known.whole_at + WHOLE_EVERY.min(self.at_least_every) {
            return Ok(false);
        }
        Ok(!known.rooms.is_disjoint(&self.recorded_rooms().await?))
    }

    /// Records what is new of a page, and says whether there was any.
    async fn file(
        &self,
        kind: Kind,
        reports: &[Report],
        aside: &mut BTreeSet<RoomId>,
        cancel: &CancellationToken,
    ) -> Result<bool, LookError> {
        let keys: Vec<String> = reports.iter().map(|report| kind.key(report)).collect();
        let known = self.recorder.snapshots(SOURCE, &keys, cancel).await?;
        let new: Vec<_> = reports.iter().zip(keys).filter(|(_, key)| !known.contains_key(key)).collect();
        let is_of_room = new.iter().any(|(report, _)| report.room.is_some());
        let recorded = if is_of_room { self.recorded_rooms().await? } else { BTreeSet::new() };
        let mut batch = Batch::default();
        for (report, key) in new {
            match report.room.as_deref().map(RoomId::parse) {
                // Nobody is in a room that has no proper name.
                Some(Err(_)) => continue,
                Some(Ok(room)) if !recorded.contains(&room) => {
                    aside.insert(room);
                    continue;
                }
                Some(Ok(_)) | None => {}
            }
            batch.drafts.push(filed(kind, report, &key, self.now_ms()));
            batch.snapshots.push(Snapshot { source: SOURCE, key, value: Some(String::new()) });
        }
        if batch.drafts.is_empty() {
            return Ok(false);
        }
        self.recorder.append(&batch, cancel).await?;
        Ok(true)
    }
}

fn filed(kind: Kind, report: &Report, key: &str, now: i64) -> RecordDraft {
    let id = format!("survey:report:{key}");
    let span = Span::new(None, now);
    let mut draft = seen(id, Category::UserActivity, kind.action(), span);
    if let Some(received) = report.received_ms {
        draft.occurred = Occurred::At(received);
    }
    draft.actor = Actor::matrix(&report.reporter);
    draft.context.reason.clone_from(&report.reason);
    draft.text.clone_from(&report.reason);
    draft.source_raw = Some(report.raw.to_string());
    draft.subjects.push(subject(&report.reporter, "actor"));
    for (kind, id, role) in [
        ("event", &report.event, "target"),
        ("room", &report.room, "in"),
        ("user", &report.reported, "target"),
    ] {
        draft.relations.extend(id.as_ref().map(|id| Relation::new(kind, id, role)));
    }
    draft.subjects.extend(report.reported.as_ref().map(|person| subject(person, "target")));
    draft
}
