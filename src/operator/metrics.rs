//! Metrics of the operator. Labels are closed sets; no object is named.

use std::time::Duration;

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::error::Error;
use crate::domain::BotKind;

/// The metrics, registered once per process.
#[derive(Debug, Clone)]
pub struct Metrics {
    reconciles: IntCounterVec,
    errors: IntCounterVec,
    duration: HistogramVec,
    queue: IntGaugeVec,
    bots: IntGaugeVec,
    leader: IntGauge,
    watches: IntGauge,
}

/// How a reconciliation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Everything is as it should be, or waits for a change that is watched.
    Done,
    /// It will be tried again.
    Failed,
}

impl Metrics {
    /// Registers all metrics.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok::<_, prometheus::Error>(metric)
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            let metric = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok::<_, prometheus::Error>(metric)
        };
        let gauge = |name: &str, help: &str| {
            let metric = IntGauge::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok::<_, prometheus::Error>(metric)
        };
        let duration = HistogramVec::new(
            HistogramOpts::new(
                "ems_bots_operator_reconcile_duration_seconds",
                "Time that a reconciliation took.",
            )
            .buckets(vec![0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0]),
            &["kind"],
        )?;
        registry.register(Box::new(duration.clone()))?;
        let metrics = Self {
            reconciles: counter(
                "ems_bots_operator_reconciles_total",
                "Reconciliations by kind and outcome.",
                &["kind", "outcome"],
            )?,
            errors: counter(
                "ems_bots_operator_reconcile_errors_total",
                "Failed reconciliations by kind and category of the error.",
                &["kind", "category"],
            )?,
            duration,
            queue: gauges(
                "ems_bots_operator_queue_depth",
                "Bots with a change that no reconciliation has begun with yet.",
                &["kind"],
            )?,
            bots: gauges(
                "ems_bots_operator_bots",
                "Bots by kind and state of their condition Ready.",
                &["kind", "ready"],
            )?,
            leader: gauge("ems_bots_operator_leader", "1 if this process holds the lease.")?,
            watches: gauge(
                "ems_bots_operator_watched_namespaces",
                "Namespaces in which children are watched.",
            )?,
        };
        metrics.begin_at_zero();
        Ok(metrics)
    }

    /// A counter that appears with its first error would hide that error from `rate()`.
    fn begin_at_zero(&self) {
        for kind in [BotKind::Admin, BotKind::Audit] {
            for outcome in ["done", "failed"] {
                self.reconciles.with_label_values(&[kind.slug(), outcome]);
            }
            for category in Error::categories() {
                self.errors.with_label_values(&[kind.slug(), category]);
            }
        }
    }

    /// Counts a reconciliation.
    pub fn reconciled(&self, kind: BotKind, outcome: Outcome, took: Duration) {
        let outcome = match outcome {
            Outcome::Done => "done",
            Outcome::Failed => "failed",
        };
        self.reconciles.with_label_values(&[kind.slug(), outcome]).inc();
        self.duration.with_label_values(&[kind.slug()]).observe(took.as_secs_f64());
    }

    /// Counts an error; `category` is from a closed set.
    pub fn failed(&self, kind: BotKind, category: &'static str) {
        self.errors.with_label_values(&[kind.slug(), category]).inc();
    }

    /// Says how many bots wait.
    pub fn queued(&self, kind: BotKind, depth: usize) {
        self.queue.with_label_values(&[kind.slug()]).set(saturate(depth));
    }

    /// Says how many bots are in each state of readiness: `true`, `false`, `unknown`.
    pub fn bots(&self, kind: BotKind, ready: usize, not_ready: usize, unknown: usize) {
        for (state, count) in [("true", ready), ("false", not_ready), ("unknown", unknown)] {
            self.bots.with_label_values(&[kind.slug(), state]).set(saturate(count));
        }
    }

    /// Says whether this process is the leader.
    pub fn leads(&self, leads: bool) {
        self.leader.set(leads.into());
    }

    /// Says in how many namespaces children are watched.
    pub fn watching(&self, namespaces: usize) {
        self.watches.set(saturate(namespaces));
    }
}

fn saturate(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
