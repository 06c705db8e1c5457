//! Messages that other processes put into the trail's inbox become records.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{
    metrics::Metrics,
    recorder::{Recorder, Stop},
};
use crate::store::Batch;

const EVERY: Duration = Duration::from_secs(1);
const PAGE: u32 = 200;

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
            other => other?,
        }
    }
}

/// Takes everything that is in the inbox now.
pub(crate) async fn drain(
    recorder: &Recorder,
    metrics: &Metrics,
    cancel: &CancellationToken,
) -> Result<(), Stop> {
    loop {
        if cancel.is_cancelled() {
            return Err(Stop::Cancelled);
        }
        let items = recorder.inbox(PAGE, cancel).await?;
        if items.is_empty() {
            return Ok(());
        }
        let count = items.len();
        let mut batch = Batch::default();
        for item in items {
            batch.drained.push(item.id);
            batch.drafts.push(item.draft);
        }
        recorder.append(&batch, cancel).await?;
        metrics.drained(count);
    }
}
