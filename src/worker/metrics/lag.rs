//! How far recording is behind.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use prometheus::{
    Gauge, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use crate::domain::Clock;

/// How long sync has not become durable, when it is looked at: it grows whatever stands still.
#[derive(Debug, Clone)]
pub(super) struct Lag {
    gauge: Gauge,
    clock: Arc<dyn Clock>,
    /// Milliseconds since 1970 of the last sync or of the start, or [`Lag::NOT_FOLLOWING`].
    since: Arc<AtomicI64>,
}

impl Lag {
    const NOT_FOLLOWING: i64 = i64::MIN;

    /// Counts from the start on.
    pub(super) fn register(registry: &Registry, clock: Arc<dyn Clock>) -> prometheus::Result<Self> {
        let lag = Self {
            gauge: Gauge::new(
                "ems_bots_worker_sync_lag_seconds",
                "Time since a sync was last recorded; 0 while the bot is suspended.",
            )?,
            since: Arc::new(AtomicI64::new(clock.now().as_millisecond())),
            clock,
        };
        registry.register(Box::new(lag.clone()))?;
        Ok(lag)
    }

    /// Whether sync is followed at all.
    pub(super) fn does_follow(&self, does: bool) {
        let now = self.clock.now().as_millisecond();
        self.follow(if does { now } else { Self::NOT_FOLLOWING });
    }

    pub(super) fn follow(&self, since: i64) {
        self.since.store(since, Ordering::Relaxed);
    }
}

impl Collector for Lag {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let since = self.since.load(Ordering::Relaxed);
        let lag = match since {
            Self::NOT_FOLLOWING => 0,
            since => self.clock.now().as_millisecond().saturating_sub(since).max(0),
        };
        self.gauge.set(seconds(lag));
        self.gauge.collect()
    }
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 fit")]
pub(super) fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}
