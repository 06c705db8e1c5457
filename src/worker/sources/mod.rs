//! The ways by which the trail learns of what happens, and how each of them stands: named in the
//! condition `Recording`, and recorded when it changes for longer than a moment.

mod source;

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

pub(crate) use self::source::{Source, Standing};
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

type Standings = BTreeMap<Source, (Standing, Timestamp)>;

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
    began: Timestamp,
    standings: Mutex<Standings>,
    changed: Notify,
}

impl Sources {
    /// None is known yet. `scope` says what is recorded of what they tell.
    pub(crate) fn new(scope: &'static str, clock: Arc<dyn Clock>, board: Board, metrics: Metrics) -> Self {
        for source in Source::ALL {
            // In no state yet.
            metrics.source(source.slug(), "");
        }
        let (began, standings, changed) = (clock.now(), Mutex::default(), Notify::new());
        Self { inner: Arc::new(Inner { scope, clock, board, metrics, began, standings, changed }) }
    }

    /// A source stands like this from now on; the condition says so at once.
    pub(crate) fn set(&self, source: Source, standing: Standing) {
        self.set_since(source, standing, self.inner.clock.now());
    }

    /// The same, where it shows only now that it has been so since then.
    pub(crate) fn set_since(&self, source: Source, standing: Standing, since: Timestamp) {
        let mut standings = self.inner.standings.lock().unwrap_or_else(PoisonError::into_inner);
        self.put(&mut standings, source, standing, since);
    }

    /// How they stood when a worker before this one took it down, as far as nothing is known since: what was followed is
    /// behind until it is looked at again, which may be long if there is no session.
    fn resume(&self, known: &BTreeMap<Source, Since>) {
        let mut standings = self.inner.standings.lock().unwrap_or_else(PoisonError::into_inner);
        for (source, before) in known.iter().filter(|(source, _)| source.is_looked_at()) {
            if !standings.contains_key(source) {
                let standing = match (before.standing.as_str(), &before.why) {
                    ("off", Some(why)) => Standing::Off(why.clone()),
                    _ => Standing::Lagging("nobody has looked since the worker started".to_owned()),
                };
                self.put(&mut standings, *source, standing, self.inner.began);
            }
        }
    }

    fn put(&self, standings: &mut Standings, source: Source, standing: Standing, since: Timestamp) {
        let inner = &self.inner;
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
        let check = check(inner.scope, standings);
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
        self.resume(&known);
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
fn check(scope: &str, standings: &Standings) -> Check {
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
    fn what_was_followed_before_a_restart_is_behind_until_somebody_looks() {
        let board = Board::new();
        let sources = sources(&board);
        let before = |standing: &str, why: Option<&str>| Since {
            standing: standing.to_owned(),
            why: why.map(str::to_owned),
            since_ms: 7,
        };
        sources.set(Source::Media, Standing::On);
        sources.resume(&BTreeMap::from([
            (Source::Rooms, before("on", None)),
            (Source::Accounts, before("on", None)),
            (Source::Media, before("lagging", Some("502"))),
            (Source::UserReports, before("off", Some("not offered"))),
            (Source::Inbox, before("on", None)),
        ]));
        let expected = "records everything; accounts: lagging: nobody has looked since the worker started; media: on; \
                        user reports: off: not offered";
        assert_eq!(board.get().recording.message, expected);
        sources.set(Source::Accounts, Standing::On);
        assert!(board.get().recording.message.contains("; accounts: on;"));
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
