//! Metrics of the console. Labels are closed sets; nobody and nothing is named.

use prometheus::{IntCounterVec, IntGauge, Opts, Registry};

use crate::store::platform::WaitingTotals;

/// The metrics, registered once per process.
#[derive(Debug, Clone)]
pub struct Metrics {
    reports: IntCounterVec,
    records: IntCounterVec,
    waiting: IntGauge,
    left_over: IntGauge,
    oldest: IntGauge,
    certificate: IntGauge,
}

/// What reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The admission webhook.
    Admission,
    /// Audit events.
    Audit,
}

impl Source {
    fn as_str(self) -> &'static str {
        match self {
            Self::Admission => "admission",
            Self::Audit => "audit",
        }
    }
}

/// How a report was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// What is to be recorded of it is durable.
    Taken,
    /// It cannot be read.
    Unreadable,
    /// Whoever sent it did not prove to be the API server.
    Unauthenticated,
    /// Whoever sent it proved nothing, and sends too much, or asks for a change of what there is not.
    Limited,
    /// No database took it, there was no room for it in time, or it is not known yet which bots there are.
    Refused,
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Unreadable => "unreadable",
            Self::Unauthenticated => "unauthenticated",
            Self::Limited => "limited",
            Self::Refused => "refused",
        }
    }
}

impl Metrics {
    /// Registers all metrics.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok::<_, prometheus::Error>(metric)
        };
        let gauge = |name: &str, help: &str| {
            let metric = IntGauge::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok::<_, prometheus::Error>(metric)
        };
        let metrics = Self {
            reports: counter(
                "ems_bots_console_reports_total",
                "Reports of the API server by source and outcome.",
                &["source", "outcome"],
            )?,
            records: counter(
                "ems_bots_console_records_total",
                "Records that were made of reports, by where they went.",
                &["way"],
            )?,
            waiting: gauge("ems_bots_console_waiting_records", "Records that wait for their trail.")?,
            left_over: gauge(
                "ems_bots_console_left_over_records",
                "Records among those that wait whose bot was deleted, or never made.",
            )?,
            oldest: gauge(
                "ems_bots_console_oldest_waiting_seconds",
                "Time for which the oldest record has been waiting for the trail of a bot that there is.",
            )?,
            certificate: gauge(
                "ems_bots_console_certificate_expiry_timestamp_seconds",
                "When the certificate of the intake ends.",
            )?,
        };
        for way in ["trail", "waiting", "forwarded", "expired", "refused"] {
            metrics.records.with_label_values(&[way]).inc_by(0);
        }
        Ok(metrics)
    }

    pub(super) fn reported(&self, source: Source, outcome: Outcome) {
        self.reports.with_label_values(&[source.as_str(), outcome.as_str()]).inc();
    }

    /// Requests that were refused, and of which nobody knows who asked.
    pub(super) fn anonymous(&self, count: usize) {
        self.reports.with_label_values(&["audit", "anonymous"]).inc_by(count as u64);
    }

    fn records(&self, way: &str, count: usize) {
        self.records.with_label_values(&[way]).inc_by(count as u64);
    }

    pub(super) fn expired(&self, count: u64) {
        self.records.with_label_values(&["expired"]).inc_by(count);
    }

    pub(super) fn delivered(&self, count: usize) {
        self.records("trail", count);
    }

    pub(super) fn kept(&self, count: usize) {
        self.records("waiting", count);
    }

    pub(super) fn forwarded(&self, count: usize) {
        self.records("forwarded", count);
    }

    pub(super) fn refused(&self, count: usize) {
        self.records("refused", count);
    }

    pub(super) fn waiting(&self, totals: WaitingTotals) {
        self.waiting.set(i64::try_from(totals.messages).unwrap_or(i64::MAX));
        self.left_over.set(i64::try_from(totals.left_over).unwrap_or(i64::MAX));
        self.oldest.set(i64::try_from(totals.oldest.as_secs()).unwrap_or(i64::MAX));
    }

    /// When the certificate ends, in seconds since 1970.
    pub fn certificate_ends(&self, at: i64) {
        self.certificate.set(at);
    }
}
