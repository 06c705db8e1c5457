//! Delivers the report: at once when a statement changes, at most once a minute when only numbers
//! moved, never when nothing did.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{board::Board, metrics::Metrics, ports::Reporter, recorder::Recorder, recorder::Stop};
use crate::domain::worker::{RoomTotals, WorkerReport};

const NUMBERS_EVERY: Duration = Duration::from_mins(1);
/// Several parts say something at the same time as a rule: one report for all of it.
const GATHER: Duration = Duration::from_millis(300);
const RETRY: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_secs(2);

/// Delivers reports until cancelled, the last one after that.
pub(crate) async fn run(
    board: Board,
    reporter: Arc<dyn Reporter>,
    metrics: Metrics,
    cancel: CancellationToken,
) {
    let mut changes = board.subscribe();
    let mut sent: Option<(WorkerReport, Instant)> = None;
    let mut retry_at = None;
    loop {
        let report = board.get();
        show(&metrics, &report);
        let now = Instant::now();
        let due = due(&report, sent.as_ref(), now).max(retry_at.unwrap_or(now));
        let wait = async {
            if sent.as_ref().is_some_and(|(last, _)| *last == report) {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep_until(due).await;
        };
        tokio::select! {
            biased;
            () = cancel.cancelled() => {
                deliver(&board.get(), &reporter).await;
                return;
            }
            () = wait => {
                tokio::time::sleep(GATHER).await;
                let report = board.get();
                if deliver(&report, &reporter).await {
                    sent = Some((report, Instant::now()));
                    retry_at = None;
                } else {
                    retry_at = Some(Instant::now() + RETRY);
                }
            }
            () = reporter.overwritten(), if sent.is_some() => {
                // Two who write over each other must not do so without a pause.
                tokio::time::sleep(AGAIN).await;
                sent = None;
            }
            news = changes.changed() => {
                if news.is_err() {
                    return;
                }
            }
        }
    }
}

/// When the report should go out.
fn due(report: &WorkerReport, sent: Option<&(WorkerReport, Instant)>, now: Instant) -> Instant {
    match sent {
        Some((last, at)) if statements(last) == statements(report) => *at + NUMBERS_EVERY,
        _ => now,
    }
}

/// The report without the numbers that move all the time.
fn statements(report: &WorkerReport) -> WorkerReport {
    let mut report = report.clone();
    report.rooms = RoomTotals::default();
    report.history = None;
    report.undecryptable.clear();
    // Which epoch, and that there is a trail at all, is a statement.
    if let Some(trail) = &mut report.trail {
        trail.size = 0;
        trail.root_hash.clear();
    }
    report
}

async fn deliver(report: &WorkerReport, reporter: &Arc<dyn Reporter>) -> bool {
    match reporter.report(report).await {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(%error, "cannot deliver the report");
            false
        }
    }
}

fn show(metrics: &Metrics, report: &WorkerReport) {
    metrics.rooms(&report.rooms);
    metrics.history(report.history.unwrap_or_default());
    metrics.undecryptable(&report.undecryptable);
    for (name, check) in [
        ("encryption", &report.encryption),
        ("database", &report.database),
        ("rooms_covered", &report.rooms_covered),
        ("recording", &report.recording),
        ("integrity", &report.integrity),
    ] {
        metrics.check(name, check);
    }
}

/// Counts what could not be decrypted, every half minute.
pub(crate) async fn count_undecryptable(
    recorder: Recorder,
    board: Board,
    cancel: CancellationToken,
) -> Result<(), Stop> {
    let mut tick = tokio::time::interval(Duration::from_secs(30));
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = cancel.cancelled() => return Ok(()),
        }
        match recorder.pending_totals(&cancel).await {
            Ok(totals) => board.set(|report| report.undecryptable = totals.into_iter().collect()),
            Err(Stop::Cancelled) => return Ok(()),
            Err(stop) => return Err(stop),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;
    use prometheus::Registry;

    use super::*;
    use crate::{
        domain::{trail::TrailPoint, worker::Check},
        worker::ports::ReportError,
    };

    #[derive(Default)]
    struct Kept {
        reports: Mutex<Vec<(Instant2, WorkerReport)>>,
        failures: Mutex<u32>,
    }
    type Instant2 = tokio::time::Instant;

    #[async_trait]
    impl Reporter for Kept {
        async fn report(&self, report: &WorkerReport) -> Result<(), ReportError> {
            let mut failures = self.failures.lock().unwrap();
            if *failures > 0 {
                *failures -= 1;
                return Err(ReportError("no".into()));
            }
            self.reports.lock().unwrap().push((Instant2::now(), report.clone()));
            Ok(())
        }
    }

    fn size(board: &Board, size: i64) {
        board.set(|report| {
            report.trail = Some(TrailPoint { epoch: 1, size, root_hash: size.to_string() });
        });
    }

    fn start(failures: u32) -> (Board, Arc<Kept>, CancellationToken) {
        let (board, cancel) = (Board::new(), CancellationToken::new());
        let kept = Arc::new(Kept { failures: Mutex::new(failures), ..Kept::default() });
        let metrics = Metrics::new(&Registry::new(), Arc::new(crate::domain::SystemClock)).unwrap();
        tokio::spawn(run(board.clone(), kept.clone(), metrics, cancel.clone()));
        (board, kept, cancel)
    }

    #[tokio::test(start_paused = true)]
    async fn numbers_move_once_a_minute_and_statements_at_once() {
        let (board, kept, _cancel) = start(0);
        size(&board, 1);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(kept.reports.lock().unwrap().len(), 1);
        for number in 2..100 {
            size(&board, number);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let moved = kept.reports.lock().unwrap().len() - 1;
        assert_eq!(moved, 1, "98 seconds of moving numbers are one report");
        board.set(|report| report.encryption = Check::failed("X", "x"));
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(kept.reports.lock().unwrap().len(), 3);
        tokio::time::sleep(Duration::from_hours(1)).await;
        assert_eq!(kept.reports.lock().unwrap().len(), 3, "an hour of nothing is no report");
    }

    #[tokio::test(start_paused = true)]
    async fn a_report_that_fails_is_tried_again_and_the_last_one_is_sent_at_the_end() {
        let (board, kept, cancel) = start(2);
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!(kept.reports.lock().unwrap().len(), 1);
        size(&board, 7);
        tokio::time::sleep(Duration::from_millis(10)).await;
        cancel.cancel();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let last = kept.reports.lock().unwrap().last().unwrap().1.clone();
        assert_eq!(last.trail.unwrap().size, 7);
    }
}
