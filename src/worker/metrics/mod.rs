//! What Prometheus sees of a worker. Labels are closed sets.

mod lag;
mod rooms;

use std::sync::Arc;

use prometheus::{Gauge, GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use self::{
    lag::{Lag, seconds},
    rooms::Rooms,
};
use crate::domain::{
    Clock,
    record::{Category, RecordDraft},
    worker::{Check, HistoryProgress, RoomTotals},
};

/// Why an event can be undecryptable.
const UNDECRYPTABLE: [&str; 5] = ["missing_key", "key_withheld", "before_join", "corrupt", "unknown"];

/// What can become of an attachment.
const ATTACHMENT_OUTCOMES: [&str; 3] = ["kept", "described", "not_kept"];

/// All of the worker's metrics.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    lag: Lag,
    last_sync: Gauge,
    sync_errors: IntCounterVec,
    records: IntCounterVec,
    undecryptable: IntGaugeVec,
    rooms: Rooms,
    database_errors: IntCounterVec,
    batches: IntCounter,
    trail_size: IntGauge,
    backfilled: IntCounter,
    history: IntGauge,
    history_rooms: IntGauge,
    late_keys: IntCounter,
    unreadable: IntCounter,
    inbox: IntCounter,
    attachments: IntCounterVec,
    attachments_waiting: IntGauge,
    attachments_failing: IntGauge,
    opaque: IntCounter,
    checks: GaugeVec,
    sources: IntGaugeVec,
}

fn named(registry: &Registry, name: &str, help: &str) -> prometheus::Result<IntCounter> {
    let metric = IntCounter::with_opts(Opts::new(name, help))?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn labelled(registry: &Registry, name: &str, help: &str, label: &str) -> prometheus::Result<IntCounterVec> {
    let metric = IntCounterVec::new(Opts::new(name, help), &[label])?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn gauge(registry: &Registry, name: &str, help: &str) -> prometheus::Result<Gauge> {
    let metric = Gauge::with_opts(Opts::new(name, help))?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn gauges(registry: &Registry, name: &str, help: &str, label: &str) -> prometheus::Result<IntGaugeVec> {
    let metric = IntGaugeVec::new(Opts::new(name, help), &[label])?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn level(registry: &Registry, name: &str, help: &str) -> prometheus::Result<IntGauge> {
    let metric = IntGauge::new(name, help)?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

impl Metrics {
    /// Registers them.
    pub fn new(registry: &Registry, clock: Arc<dyn Clock>) -> prometheus::Result<Self> {
        let checks = GaugeVec::new(
            Opts::new("ems_bots_worker_check", "Checks of the worker: 1 good, 0 bad, -1 not known."),
            &["check"],
        )?;
        registry.register(Box::new(checks.clone()))?;
        let sources = IntGaugeVec::new(
            Opts::new(
                "ems_bots_worker_source",
                "How each source of the trail stands: 1 for the state it is in.",
            ),
            &["source", "state"],
        )?;
        registry.register(Box::new(sources.clone()))?;
        Ok(Self(Arc::new(Inner {
            history: level(
                registry,
                "ems_bots_worker_history_spans",
                "Spans of rooms' history still to be read.",
            )?,
            history_rooms: level(registry, "ems_bots_worker_history_rooms", "Rooms with such spans.")?,
            attachments_waiting: level(
                registry,
                "ems_bots_worker_attachments_waiting",
                "Attachments still to be fetched.",
            )?,
            attachments_failing: level(
                registry,
                "ems_bots_worker_attachments_failing",
                "Those of the attachments still to be fetched that failed several times.",
            )?,
            attachments: labelled(
                registry,
                "ems_bots_worker_attachments_total",
                "Attachments that were recorded as kept, described or not kept.",
                "outcome",
            )?,
            lag: Lag::register(registry, clock)?,
            last_sync: gauge(
                registry,
                "ems_bots_worker_last_sync_timestamp_seconds",
                "When a sync was last recorded.",
            )?,
            sync_errors: labelled(
                registry,
                "ems_bots_worker_sync_errors_total",
                "Failed calls to the homeserver.",
                "category",
            )?,
            records: labelled(
                registry,
                "ems_bots_worker_records_total",
                "Records appended since the start.",
                "category",
            )?,
            undecryptable: gauges(
                registry,
                "ems_bots_worker_undecryptable_events",
                "Events whose key is missing.",
                "reason",
            )?,
            rooms: Rooms::new(registry)?,
            database_errors: labelled(
                registry,
                "ems_bots_worker_database_errors_total",
                "Failed calls to the database.",
                "category",
            )?,
            batches: named(registry, "ems_bots_worker_batches_total", "Transactions committed.")?,
            trail_size: level(registry, "ems_bots_worker_trail_records", "Records in the trail.")?,
            backfilled: named(
                registry,
                "ems_bots_worker_backfilled_events_total",
                "Events read from a room's history.",
            )?,
            late_keys: named(
                registry,
                "ems_bots_worker_late_plaintexts_total",
                "Events decrypted after they were recorded.",
            )?,
            unreadable: named(
                registry,
                "ems_bots_worker_unreadable_device_messages_total",
                "Messages to the bot's device that could not be decrypted.",
            )?,
            inbox: named(
                registry,
                "ems_bots_worker_inbox_drained_total",
                "Messages taken from the trail's inbox.",
            )?,
            opaque: named(
                registry,
                "ems_bots_worker_opaque_records_total",
                "Records that the database took only as bytes.",
            )?,
            checks,
            sources,
        }))
        .at_zero())
    }

    /// What has not happened yet is shown as zero: rates and alerts need a beginning.
    fn at_zero(self) -> Self {
        for category in Category::ALL {
            self.0.records.with_label_values(&[category.as_str()]);
        }
        for category in ["unavailable", "login", "full", "query"] {
            self.0.database_errors.with_label_values(&[category]);
        }
        for outcome in ATTACHMENT_OUTCOMES {
            self.0.attachments.with_label_values(&[outcome]);
        }
        self.undecryptable([]);
        self
    }

    /// A batch became durable.
    pub(crate) fn appended(&self, drafts: &[RecordDraft], seqs: &[Option<i64>], opaque: usize, size: i64) {
        for (draft, _) in drafts.iter().zip(seqs).filter(|(_, seq)| seq.is_some()) {
            self.0.records.with_label_values(&[draft.category.as_str()]).inc();
        }
        self.0.batches.inc();
        self.0.trail_size.set(size);
        self.0.opaque.inc_by(opaque as u64);
    }

    pub(crate) fn database_error(&self, category: &str) {
        self.0.database_errors.with_label_values(&[category]).inc();
    }

    pub(crate) fn sync_error(&self, category: &str) {
        self.0.sync_errors.with_label_values(&[category]).inc();
    }

    /// A sync became durable.
    pub(crate) fn synced(&self, now: jiff::Timestamp) {
        self.0.last_sync.set(seconds(now.as_millisecond()));
        self.0.lag.follow(now.as_millisecond());
    }

    /// From now on there is to be sync, or none.
    pub(crate) fn follows(&self, does: bool) {
        // A new session says anew how its sources stand.
        self.0.sources.reset();
        self.0.lag.does_follow(does);
    }

    pub(crate) fn backfilled(&self, events: usize) {
        self.0.backfilled.inc_by(events as u64);
    }

    pub(crate) fn history(&self, progress: HistoryProgress) {
        let count = |number| i64::try_from(number).unwrap_or(i64::MAX);
        self.0.history.set(count(progress.remaining));
        self.0.history_rooms.set(count(progress.rooms));
    }

    pub(crate) fn late_plaintexts(&self, events: usize) {
        self.0.late_keys.inc_by(events as u64);
    }

    /// A message to the bot's device could not be decrypted; it may have brought a key.
    pub(crate) fn unreadable_device_message(&self) {
        self.0.unreadable.inc();
    }

    /// By the action of the record that says what became of it.
    pub(crate) fn attachment(&self, action: &str) {
        let outcome = action.strip_prefix("attachment.").unwrap_or(action);
        self.0.attachments.with_label_values(&[outcome]).inc();
    }

    /// How many still wait, and how many of them failed several times.
    pub(crate) fn attachments_waiting(&self, waiting: u64, failing: u64) {
        let count = |number| i64::try_from(number).unwrap_or(i64::MAX);
        self.0.attachments_waiting.set(count(waiting));
        self.0.attachments_failing.set(count(failing));
    }

    pub(crate) fn drained(&self, messages: usize) {
        self.0.inbox.inc_by(messages as u64);
    }

    pub(crate) fn undecryptable<'a>(&self, totals: impl IntoIterator<Item = (&'a String, &'a u64)>) {
        self.0.undecryptable.reset();
        for reason in UNDECRYPTABLE {
            self.0.undecryptable.with_label_values(&[reason]);
        }
        for (reason, count) in totals {
            let count = i64::try_from(*count).unwrap_or(i64::MAX);
            self.0.undecryptable.with_label_values(&[reason]).set(count);
        }
    }

    pub(crate) fn rooms(&self, rooms: &RoomTotals) {
        self.0.rooms.set(rooms);
    }

    /// A source is `on`, `lagging` or `off`.
    pub(crate) fn source(&self, source: &'static str, standing: &'static str) {
        for state in ["on", "lagging", "off"] {
            self.0.sources.with_label_values(&[source, state]).set(i64::from(state == standing));
        }
    }

    pub(crate) fn check(&self, name: &'static str, check: &Check) {
        let value = match check.ok {
            Some(true) => 1.0,
            Some(false) => 0.0,
            None => -1.0,
        };
        self.0.checks.with_label_values(&[name]).set(value);
    }
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};

    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;
    use crate::domain::SystemClock;

    #[derive(Debug)]
    struct Moved(AtomicI64);

    impl Clock for Moved {
        fn now(&self) -> Timestamp {
            Timestamp::from_second(1_790_000_000 + self.0.load(Ordering::Relaxed)).unwrap()
        }
    }

    #[test]
    fn the_lag_grows_while_nothing_is_recorded() {
        let (registry, clock) = (Registry::new(), Arc::new(Moved(AtomicI64::new(0))));
        let metrics = Metrics::new(&registry, clock.clone()).unwrap();
        let lag_at = |second: i64| {
            clock.0.store(second, Ordering::Relaxed);
            let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
            let line = text.lines().find(|line| line.starts_with("ems_bots_worker_sync_lag_seconds "));
            line.unwrap().rsplit(' ').next().unwrap().to_owned()
        };
        assert_eq!(lag_at(50), "50", "no sync at all");
        assert_eq!(lag_at(170), "170");
        metrics.synced(clock.now() - SignedDuration::from_secs(5));
        assert_eq!(lag_at(170), "5");
        assert_eq!(lag_at(10_000), "9835", "an outage");
        metrics.follows(false);
        assert_eq!(lag_at(20_000), "0", "suspended");
        metrics.follows(true);
        assert_eq!(lag_at(20_007), "7");
    }

    #[test]
    fn they_register_once_and_show_their_labels() {
        let registry = Registry::new();
        let metrics = Metrics::new(&registry, Arc::new(SystemClock)).unwrap();
        metrics.database_error("unavailable");
        metrics.rooms(&RoomTotals { covered: 3, ..RoomTotals::default() });
        metrics.check("encryption", &Check::failed("X", "x"));
        metrics.history(HistoryProgress { remaining: 5, rooms: 4, ..HistoryProgress::default() });
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        assert!(
            text.contains(r#"ems_bots_worker_database_errors_total{category="unavailable"} 1"#),
            "{text}"
        );
        assert!(text.contains(r#"ems_bots_worker_rooms{state="covered"} 3"#), "{text}");
        assert!(text.contains(r#"ems_bots_worker_check{check="encryption"} 0"#), "{text}");
        for line in ["history_spans 5", "history_rooms 4"] {
            assert!(text.contains(&format!("\nems_bots_worker_{line}\n")), "{text}");
        }
        let zeros =
            [r#"records_total{category="user_activity"} 0"#, r#"undecryptable_events{reason="corrupt"} 0"#];
        assert!(zeros.iter().all(|line| text.contains(&format!("ems_bots_worker_{line}"))), "{text}");
        assert!(Metrics::new(&registry, Arc::new(SystemClock)).is_err());
    }
}
