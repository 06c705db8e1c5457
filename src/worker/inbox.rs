//! Messages that other processes put into the trail's inbox become records. By which ways anything has come is all that a
//! worker can know of those who put it there: where nothing happens nothing comes, and it asks nobody.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    metrics::Metrics,
    recorder::{Recorder, Stop},
    sources::{Source, Sources, Standing},
};
use crate::{
    domain::vocabulary::{ADMISSION_SOURCE, AUDIT_SOURCES},
    store::{Batch, InboxItem},
};

const EVERY: Duration = Duration::from_secs(1);
const PAGE: u32 = 200;
/// A database that takes longer to tell that there is nothing may have been away.
const ANSWER: Duration = Duration::from_secs(5);

/// Cursor that keeps by which ways something has come.
const CURSOR: &str = "worker:inbox";

/// By which ways something authentic has come, ever.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Came {
    anything: bool,
    admission_reviews: bool,
    audit_events: bool,
}

impl Came {
    async fn known(recorder: &Recorder, cancel: &CancellationToken) -> Result<Self, Stop> {
        let kept = recorder.cursor(CURSOR, cancel).await?;
        Ok(kept.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default())
    }

    fn with(self, item: &InboxItem) -> Self {
        let Some(source) = &item.names else { return self };
        Self {
            anything: true,
            admission_reviews: self.admission_reviews || source.starts_with(ADMISSION_SOURCE),
            audit_events: self.audit_events || AUDIT_SOURCES.iter().any(|start| source.starts_with(start)),
        }
    }
}

/// Says of the inbox, and of what comes by it, whether anything has come yet.
pub(crate) async fn say(recorder: Recorder, sources: Sources, cancel: CancellationToken) -> Result<(), Stop> {
    loop {
        let came = match Came::known(&recorder, &cancel).await {
            Err(Stop::Cancelled) => return Ok(()),
            known => known?,
        };
        for (source, has_come, why) in [
            (Source::Inbox, came.anything, "nothing has come from a console yet"),
            (Source::AdmissionReviews, came.admission_reviews, "none has come yet"),
            (Source::AuditEvents, came.audit_events, "none has come yet"),
        ] {
            sources.set(source, if has_come { Standing::On } else { Standing::Off(why.to_owned()) });
        }
        if cancel.run_until_cancelled(recorder.came.notified()).await.is_none() {
            return Ok(());
        }
    }
}

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
        let known = Came::known(recorder, cancel).await?;
        let came = items.iter().fold(known, Came::with);
        let mut batch = Batch::default();
        if came != known {
            let text = serde_json::to_string(&came).unwrap_or_default();
            batch.cursors.push((CURSOR.to_owned(), text));
        }
        for item in items {
            batch.drained.push(item.id);
            batch.drafts.push(item.draft);
        }
        recorder.append(&batch, cancel).await?;
        if came != known {
            recorder.came.notify_one();
        }
        metrics.drained(count);
        all += count;
    }
}
