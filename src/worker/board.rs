//! The worker's report while its parts write into it.

use std::sync::Arc;

use tokio::sync::watch;

use super::synapse_module;
use crate::domain::worker::{Check, RoomTotals, WorkerReport};

/// Shared by all parts; each sets its own fields.
#[derive(Debug, Clone)]
pub struct Board {
    report: Arc<watch::Sender<WorkerReport>>,
}

impl Default for Board {
    fn default() -> Self {
        Self::new()
    }
}

impl Board {
    /// A board on which nothing is known yet.
    pub fn new() -> Self {
        let starting = || Check::unknown("Starting", "the worker starts");
        let report = WorkerReport {
            generation: 0,
            device_id: None,
            encryption: starting(),
            database: starting(),
            rooms_covered: starting(),
            recording: starting(),
            integrity: Check::unknown("NotChecked", "nothing has checked the trail yet"),
            module: synapse_module::not_checked(),
            rooms: RoomTotals::default(),
            history: None,
            undecryptable: std::collections::BTreeMap::new(),
            trail: None,
            closed: false,
            suspended: false,
        };
        Self { report: Arc::new(watch::Sender::new(report)) }
    }

    /// Changes the report; nobody is woken when it stays the same.
    pub fn set(&self, change: impl FnOnce(&mut WorkerReport)) {
        self.report.send_if_modified(|report| {
            let before = report.clone();
            change(report);
            before != *report
        });
    }

    /// The report as it is now.
    pub fn get(&self) -> WorkerReport {
        self.report.borrow().clone()
    }

    /// Follows the report.
    pub fn subscribe(&self) -> watch::Receiver<WorkerReport> {
        self.report.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_wake_the_reader() {
        let board = Board::new();
        let mut reader = board.subscribe();
        reader.mark_unchanged();
        board.set(|report| report.closed = false);
        assert!(!reader.has_changed().unwrap());
        board.set(|report| report.closed = true);
        assert!(reader.has_changed().unwrap());
    }
}
