//! The worker without a cluster: the custom resource is a file, reports go to the log.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use async_trait::async_trait;
use tokio::sync::watch;

use crate::{
    crd::{AdminBot, AuditBot, convert::instructions},
    domain::{
        BotKind,
        trail::TrailPoint,
        worker::{Check, Instructions, WorkerReport},
    },
    lifecycle::Lifecycle,
    worker::ports::{ReportError, Reporter},
};

/// Reads the file and follows its changes.
pub(super) async fn start(
    kind: BotKind,
    file: PathBuf,
    kept: Option<TrailPoint>,
    lifecycle: &Lifecycle,
) -> anyhow::Result<(watch::Receiver<Instructions>, Arc<dyn Reporter>)> {
    let mut text = tokio::fs::read_to_string(&file).await.context("cannot read the custom resource")?;
    let (sender, receiver) = watch::channel(read(kind, &text, kept.clone())?);
    let soft = lifecycle.soft();
    lifecycle.spawn("custom resource", async move {
        let mut tick = tokio::time::interval(Duration::from_millis(500));
        loop {
            tokio::select! {
                () = soft.cancelled() => return Ok::<_, std::convert::Infallible>(()),
                _ = tick.tick() => {}
            }
            let Ok(now) = tokio::fs::read_to_string(&file).await else { continue };
            if now == text {
                continue;
            }
            match read(kind, &now, kept.clone()) {
                Ok(instructions) => {
                    sender.send_replace(instructions);
                }
                Err(error) => {
                    tracing::warn!(error = %format_args!("{error:#}"), "custom resource not followed");
                }
            }
            text = now;
        }
    });
    Ok((receiver, Arc::new(LogReporter)))
}

fn read(kind: BotKind, text: &str, kept: Option<TrailPoint>) -> anyhow::Result<Instructions> {
    Ok(match kind {
        BotKind::Admin => instructions(&serde_yaml::from_str::<AdminBot>(text)?, kept)?,
        BotKind::Audit => instructions(&serde_yaml::from_str::<AuditBot>(text)?, kept)?,
    })
}

/// Writes each report as one line.
struct LogReporter;

#[async_trait]
impl Reporter for LogReporter {
    async fn report(&self, report: &WorkerReport) -> Result<(), ReportError> {
        let text = |check: &Check| format!("{:?} {}: {}", check.ok, check.reason, check.message);
        tracing::info!(
            generation = report.generation,
            device = ?report.device_id,
            encryption = text(&report.encryption),
            database = text(&report.database),
            rooms_covered = text(&report.rooms_covered),
            recording = text(&report.recording),
            integrity = text(&report.integrity),
            module = text(&report.module),
            covered = report.rooms.covered,
            rooms = report.rooms.total(),
            trail = report.trail.as_ref().map(|trail| trail.size),
            closed = report.closed,
            suspended = report.suspended,
            "report"
        );
        Ok(())
    }
}
