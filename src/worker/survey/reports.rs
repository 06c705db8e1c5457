//! Reports of events and users to the homeserver's administrators: the newest ones are read until some are known
//! that are older than a week. Neither their order nor their numbers can be relied on: a report is listed once its
//! room is counted, and after a restart the homeserver may give out the number of a deleted report again.

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
    homeserver::{HomeserverError, Report, Rows},
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

impl Survey {
    /// All reports that the homeserver has, but those of events in rooms that are not recorded. Where the bot comes in later,
    /// they are found then.
    pub(super) async fn reports(&self, cancel: &CancellationToken) -> Result<(), LookError> {
        // Older homeservers have reports of events only.
        let of_users = self.reports_of(Kind::User, cancel).await;
        self.reports_of(Kind::Event, cancel).await?;
        match of_users {
            Err(LookError::Homeserver(HomeserverError::NotOffered { .. })) => Ok(()),
            result => result,
        }
    }

    async fn reports_of(&self, kind: Kind, cancel: &CancellationToken) -> Result<(), LookError> {
        let mut from = 0;
        loop {
            let page: Rows<Report> = match kind {
                Kind::Event => self.inspect.event_reports(from).await?,
                Kind::User => self.inspect.user_reports(from).await?,
            };
            let keys: Vec<String> = page.rows.iter().map(|report| kind.key(report)).collect();
            let known = self.recorder.snapshots(SOURCE, &keys, cancel).await?;
            let mut new: Vec<_> =
                page.rows.iter().zip(keys).filter(|(_, key)| !known.contains_key(key)).collect();
            if new.iter().any(|(report, _)| report.room.is_some()) {
                let rooms = self.recorded_rooms().await?;
                let is_recorded =
                    |room: &String| RoomId::parse(&**room).is_ok_and(|room| rooms.contains(&room));
                new.retain(|(report, _)| report.room.as_ref().is_none_or(is_recorded));
            }
            let mut batch = Batch::default();
            for (report, key) in new {
                batch.drafts.push(filed(kind, report, &key, self.now_ms()));
                batch.snapshots.push(Snapshot { source: SOURCE, key, value: Some(String::new()) });
            }
            let since = self.now_ms().saturating_sub(OVERLAP_MS);
            let is_recent = page.rows.iter().any(|report| report.received_ms.is_none_or(|at| at > since));
            let goes_on = is_recent || !batch.drafts.is_empty();
            if !batch.drafts.is_empty() {
                self.recorder.append(&batch, cancel).await?;
            }
            match page.next.filter(|_| goes_on) {
                Some(next) => from = next,
                None => return Ok(()),
            }
        }
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
