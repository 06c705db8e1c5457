//! The ways by which the trail learns of what happens, and how each of them stands: named in the
//! condition `Recording`, and recorded when it changes for longer than a moment.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{
    board::Board,
    metrics::Metrics,
    recorder::{Recorder, Stop},
    records,
};
use crate::{
    domain::{BotName, Clock, worker::Check},
    store::Batch,
};

/// Cursor that keeps how each source stood when that was last recorded.
const CURSOR: &str = "worker:sources";

/// A way by which the trail learns of what happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Source {
    /// What happens in the bot's rooms, as sync tells it.
    Rooms,
    /// Plaintexts of events whose key came later.
    LateKeys,
    /// What sync leaves out, and what was before the bot came.
    History,
    /// Contents of what was attached to messages.
    Attachments,
    /// Accounts and their sessions.
    Accounts,
    /// Uploads.
    Media,
    /// Media that are put into quarantine or taken out.
    Quarantine,
    /// Reports of events to the homeserver's administrators.
    Reports,
    /// Reports of users to them.
    UserReports,
    /// The homeserver's version and features.
    Homeserver,
    /// Rooms that are deleted.
    DeletedRooms,
    /// What other processes, which is the console, want recorded.
    Inbox,
    /// Requests to change a bot, of which the console is told before they are done.
    AdmissionReviews,
    /// Kubernetes' audit events, of which the console is told.
    AuditEvents,
}

impl Source {
    /// Every source.
    pub(crate) const ALL: [Self; 14] = [
        Self::Rooms,
        Self::LateKeys,
        Self::History,
        Self::Attachments,
        Self::Accounts,
        Self::Media,
        Self::Quarantine,
        Self::Reports,
        Self::UserReports,
        Self::Homeserver,
        Self::DeletedRooms,
        Self::Inbox,
        Self::AdmissionReviews,
        Self::AuditEvents,
    ];

    /// The name in the condition.
    fn words(self) -> &'static str {
        match self {
            Self::Rooms => "rooms",
            Self::LateKeys => "late keys",
            Self::History => "history",
            Self::Attachments => "attachments",
            Self::Accounts => "accounts",
            Self::Media => "media",
            Self::Quarantine => "quarantine",
            Self::Reports => "reports",
            Self::UserReports => "user reports",
            Self::Homeserver => "homeserver",
            Self::DeletedRooms => "deleted rooms",
            Self::Inbox => "inbox",
            Self::AdmissionReviews => "admission reviews",
            Self::AuditEvents => "audit events",
        }
    }

    /// The name in metrics and records.
    pub(crate) fn slug(self) -> &'static str {
        match self {
            Self::LateKeys => "late_keys",
            Self::UserReports => "user_reports",
            Self::DeletedRooms => "deleted_rooms",
            Self::AdmissionReviews => "admission_reviews",
            Self::AuditEvents => "audit_events",
            other => other.words(),
        }
    }
}

/// How a source stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is followed.
    On,
    /// It is behind, and tried again: why.
    Lagging(String),
    /// It is not followed: why.
    Off(String),
}

impl Standing {
    /// The name in metrics and records.
    pub(crate) fn slug(&self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Lagging(_) => "lagging",
            Self::Off(_) => "off",
        }
    }

    fn why(&self) -> Option<&str> {
        match self {
            Self::On => None,
            Self::Lagging(why) | Self::Off(why) => Some(why),
        }
    }
}

/// A standing of a source, as it is kept and recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Since {
    /// See [`Standing::slug`].
    pub(crate) standing: String,
    /// Why it is not on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<String>,
    /// Since when, in milliseconds since 1970.
    pub(crate) since_ms: i64,
}

/// How every source stands. Clones share it.
#[derive(Clone)]
pub(crate) struct Sources {
    inner: Arc<Inner>,
}

struct Inner {
    scope: &'static str,
    clock: Arc<dyn Clock>,
    board: Board,
    metrics: Metrics,
    standings: Mutex<BTreeMap<Source, (Standing, Timestamp)>>,
    changed: Notify,
}

impl Sources {
    /// None is known yet. `scope` says what is recorded of what they tell.
    pub(crate) fn new(scope: &'static str, clock: Arc<dyn Clock>, board: Board, metrics: Metrics) -> Self {
        for source in Source::ALL {
            // In no state yet.
            metrics.source(source.slug(), "");
        }
        let (standings, changed) = (Mutex::default(), Notify::new());
        Self { inner: Arc::new(Inner { scope, clock, board, metrics, standings, changed }) }
    }

    /// A source stands like this from now on; the condition says so at once.
    pub(crate) fn set(&self, source: Source, standing: Standing) {
        self.set_since(source, standing, self.inner.clock.now());
    }

    /// The same, where it shows only now that it has been so since then.
    pub(crate) fn set_since(&self, source: Source, standing: Standing, since: Timestamp) {
        let inner = &self.inner;
        let mut standings = inner.standings.lock().unwrap_or_else(PoisonError::into_inner);
        let known = standings.get(&source);
        if known.is_some_and(|(known, _)| *known == standing) {
            return;
        }
        inner.metrics.source(source.slug(), standing.slug());
        let since = match known {
            Some((known, since)) if known.slug() == standing.slug() => *since,
            _ => since,
        };
        standings.insert(source, (standing, since));
        let check = check(inner.scope, &standings);
        inner.board.set(|report| report.recording = check);
        inner.changed.notify_one();
    }

    /// How they stand, as it is kept and recorded.
    fn now(&self) -> BTreeMap<Source, Since> {
        let standings = self.inner.standings.lock().unwrap_or_else(PoisonError::into_inner);
        let since = |(standing, at): &(Standing, Timestamp)| Since {
            standing: standing.slug().to_owned(),
            why: standing.why().map(str::to_owned),
            since_ms: at.as_millisecond(),
        };
        standings.iter().map(|(source, standing)| (*source, since(standing))).collect()
    }

    /// Records every switch that lasts longer than a moment, until cancelled.
    pub(crate) async fn record(
        self,
        bot: BotName,
        recorder: Recorder,
        moment: Duration,
        cancel: CancellationToken,
    ) -> Result<(), Stop> {
        match self.follow(&bot, &recorder, moment, &cancel).await {
            Err(Stop::Cancelled) | Ok(()) => Ok(()),
            Err(stop) => Err(stop),
        }
    }

    async fn follow(
        &self,
        bot: &BotName,
        recorder: &Recorder,
        moment: Duration,
        cancel: &CancellationToken,
    ) -> Result<(), Stop> {
        let known = recorder.cursor(CURSOR, cancel).await?;
        let mut known: BTreeMap<Source, Since> =
            known.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        loop {
            let switched = async {
                self.inner.changed.notified().await;
                tokio::time::sleep(moment).await;
            };
            if cancel.run_until_cancelled(switched).await.is_none() {
                return Ok(());
            }
            self.record_switches(&mut known, bot, recorder, cancel).await?;
        }
    }

    async fn record_switches(
        &self,
        known: &mut BTreeMap<Source, Since>,
        bot: &BotName,
        recorder: &Recorder,
        cancel: &CancellationToken,
    ) -> Result<(), Stop> {
        let now = self.now();
        for (source, since) in &now {
            let before = known.get_mut(source).filter(|before| before.standing == since.standing);
            if let Some(before) = before {
                // The record of its end gives the last reason: it may have begun with another one.
                before.why.clone_from(&since.why);
            }
        }
        let is_switch = |source: &Source, since: &Since| {
            known.get(source).is_none_or(|before| before.standing != since.standing)
        };
        let switched: BTreeMap<Source, Since> =
            now.into_iter().filter(|(source, since)| is_switch(source, since)).collect();
        if switched.is_empty() {
            return Ok(());
        }
        let record = |(source, since): (&Source, &Since)| {
            records::source_switched(bot, source.slug(), known.get(source), since)
        };
        let drafts = switched.iter().map(record).collect();
        known.extend(switched);
        let text = serde_json::to_string(&known).unwrap_or_default();
        let batch = Batch { drafts, cursors: vec![(CURSOR.to_owned(), text)], ..Batch::default() };
        recorder.append(&batch, cancel).await.map(drop)
    }
}

/// The condition `Recording`: what happens in rooms counts, the others are named.
fn check(scope: &str, standings: &BTreeMap<Source, (Standing, Timestamp)>) -> Check {
    let mut message = scope.to_owned();
    for (source, (standing, _)) in standings {
        let _ = write!(message, "; {}: {}", source.words(), standing.slug());
        if let Some(why) = standing.why() {
            let _ = write!(message, ": {why}");
        }
    }
    match standings.get(&Source::Rooms) {
        Some((Standing::On, _)) => Check::ok("Recording", message),
        Some(_) => Check::failed("SyncFailing", message),
        None => Check::unknown("Starting", message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::SystemClock;

    fn sources(board: &Board) -> Sources {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let metrics = Metrics::new(&prometheus::Registry::new(), clock.clone()).unwrap();
        Sources::new("records everything", clock, board.clone(), metrics)
    }

    #[test]
    fn the_condition_names_every_source_and_rooms_decide() {
        let board = Board::new();
        let sources = sources(&board);
        sources.set(Source::Accounts, Standing::On);
        assert_eq!(board.get().recording.reason, "Starting");
        sources.set(Source::Rooms, Standing::On);
        sources.set(Source::Quarantine, Standing::Off("not offered".into()));
        let recording = board.get().recording;
        assert_eq!((recording.ok, recording.reason), (Some(true), "Recording"));
        let expected = "records everything; rooms: on; accounts: on; quarantine: off: not offered";
        assert_eq!(recording.message, expected);
        sources.set(Source::Rooms, Standing::Lagging("no answer".into()));
        let failing = board.get().recording;
        assert_eq!((failing.ok, failing.reason), (Some(false), "SyncFailing"));
        assert!(failing.message.contains("rooms: lagging: no answer"), "{}", failing.message);
    }

    #[test]
    fn another_reason_is_no_switch() {
        let sources = sources(&Board::new());
        let began = Timestamp::from_millisecond(7).unwrap();
        sources.set_since(Source::Rooms, Standing::Lagging("one".into()), began);
        sources.set(Source::Rooms, Standing::Lagging("two".into()));
        let now = sources.now()[&Source::Rooms].clone();
        assert_eq!((now.since_ms, now.why.as_deref()), (7, Some("two")));
    }

    #[test]
    fn names_are_different_and_kept_as_they_are() {
        let slugs: std::collections::BTreeSet<_> = Source::ALL.iter().map(|source| source.slug()).collect();
        assert_eq!(slugs.len(), Source::ALL.len());
        for source in Source::ALL {
            assert_eq!(serde_json::to_value(source).unwrap(), source.slug());
        }
    }
}
