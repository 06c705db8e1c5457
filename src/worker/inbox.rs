//! Messages that other processes put into the trail's inbox become records.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    metrics::Metrics,
    recorder::{Recorder, Stop},
};
use crate::store::Batch;

const EVERY: Duration = Duration::from_secs(1);
const PAGE: u32 = 200;
/// A database that takes longer to tell that there is nothing may have been away.
const ANSWER: Duration = Duration::from_secs(5);

/// Drains the inbox every second until cancelled.
pub(crate) async fn run(recorder: Recorder, metrics: Metrics, cancel: CancellationToken) -> Result<(), Stop> {
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = cancel.cancelled() => return Ok(()),
        }
        match drain(&recorder, &metrics, &cancel).await {
            Err(Stop::Cancelled) => return Ok(()),
            other => other.map(drop)?,
        }
    }
}

/// Takes everything that comes into the inbox, until nothing has come for so long.
pub(crate) async fn drain_until_quiet(
    recorder: &Recorder,
    metrics: &Metrics,
    quiet: Duration,
    cancel: &CancellationToken,
) -> Result<(), Stop> {
    let mut since = None;
    loop {
        let asked = Instant::now();
        let count = drain(recorder, metrics, cancel).await?;
        // Nothing comes while the database is away: the silence begins when it is there again.
        let began = match since {
            Some(since) if count == 0 && asked.elapsed() < ANSWER => since,
            _ => Instant::now(),
        };
        since = Some(began);
        let left = quiet.saturating_sub(began.elapsed());
        if left.is_zero() {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(left.min(EVERY)) => {}
            () = cancel.cancelled() => return Err(Stop::Cancelled),
        }
    }
}

/// Takes everything that is in the inbox now. Returns how much that was.
pub(crate) async fn drain(
    recorder: &Recorder,
    metrics: &Metrics,
    cancel: &CancellationToken,
) -> Result<usize, Stop> {
    let mut all = 0;
    loop {
        if cancel.is_cancelled() {
            return Err(Stop::Cancelled);
        }
        let items = recorder.inbox(PAGE, cancel).await?;
        if items.is_empty() {
            return Ok(all);
        }
        let count = items.len();
        let mut batch = Batch::default();
        for item in items {
            batch.drained.push(item.id);
            batch.drafts.push(item.draft);
        }
        recorder.append(&batch, cancel).await?;
        metrics.drained(count);
        all += count;
    }
}
