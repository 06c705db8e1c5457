//! The worker's custom resource: watched for instructions, its status applied from reports.

use std::sync::Arc;

use anyhow::Context as _;
use async_trait::async_trait;
use futures::StreamExt as _;
use kube::core::DeserializeGuard;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::status::status;
use crate::{
    crd::{Bot, convert::instructions},
    domain::{
        BotName, Clock, SystemClock,
        trail::TrailPoint,
        worker::{Instructions, WorkerReport},
    },
    kube_util::{apply_status, watch::one},
    lifecycle::Lifecycle,
    worker::ports::{ReportError, Reporter},
};

/// Field manager of the worker.
const FIELD_MANAGER: &str = "ems-bots-worker";
/// The worker's conditions, and the reason with which the operator says that it does not know them.
const OF_WORKER: [&str; 5] =
    ["EncryptionReady", "DatabaseReady", "RoomsCovered", "Recording", "IntegrityVerified"];
const NOT_READY: &str = "WorkerNotReady";

/// Watches the custom resource; returns when it was seen once.
pub(super) async fn start<B: Bot>(
    client: kube::Client,
    bot: BotName,
    kept: Option<TrailPoint>,
    lifecycle: &Lifecycle,
) -> anyhow::Result<(watch::Receiver<Instructions>, Arc<dyn Reporter>)> {
    let (first, seen) = oneshot::channel();
    lifecycle.spawn("custom resource", follow::<B>(client.clone(), bot, kept, first, lifecycle.soft()));
    let (instructions, live) = seen.await.context("the watch of the custom resource ended")?;
    let reporter: StatusReporter<B> = StatusReporter { client, live, clock: Arc::new(SystemClock) };
    Ok((instructions, Arc::new(reporter)))
}

type Followed<B> = (watch::Receiver<Instructions>, watch::Receiver<B>);

async fn follow<B: Bot>(
    client: kube::Client,
    bot: BotName,
    kept: Option<TrailPoint>,
    first: oneshot::Sender<Followed<B>>,
    soft: CancellationToken,
) -> Result<(), &'static str> {
    let mut seen = std::pin::pin!(one::<B>(client, &bot.namespace, &bot.name));
    let mut first = Some(first);
    let mut senders: Option<(watch::Sender<Instructions>, watch::Sender<B>)> = None;
    loop {
        let object = tokio::select! {
            () = soft.cancelled() => return Ok(()),
            object = seen.next() => object,
        };
        let Some(object) = object else { return Err("the watch of the custom resource ended") };
        let Some((instructions, live)) = read::<B>(&bot, object, kept.clone()) else {
            continue;
        };
        match &senders {
            Some((sender, live_sender)) => {
                live_sender.send_replace(live);
                sender.send_replace(instructions);
            }
            None => {
                let (sender, receiver) = watch::channel(instructions);
                let (live_sender, live_receiver) = watch::channel(live);
                senders = Some((sender, live_sender));
                if let Some(first) = first.take() {
                    let _ = first.send((receiver, live_receiver));
                }
            }
        }
    }
}

/// What cannot be acted on changes nothing: the last good instructions stay.
fn read<B: Bot>(
    bot: &BotName,
    object: Option<DeserializeGuard<B>>,
    kept: Option<TrailPoint>,
) -> Option<(Instructions, B)> {
    let object = match object {
        Some(DeserializeGuard(Ok(object))) => object,
        Some(DeserializeGuard(Err(error))) => {
            tracing::warn!(%bot, %error, "the custom resource does not fit its schema");
            return None;
        }
        None => {
            tracing::info!(%bot, "the custom resource does not exist");
            return None;
        }
    };
    match instructions(&object, kept) {
        Ok(instructions) => Some((instructions, object)),
        Err(error) => {
            tracing::warn!(%bot, %error, "the custom resource cannot be acted on");
            None
        }
    }
}

struct StatusReporter<B> {
    client: kube::Client,
    live: watch::Receiver<B>,
    clock: Arc<dyn Clock>,
}

#[async_trait]
impl<B: Bot> Reporter for StatusReporter<B> {
    async fn report(&self, report: &WorkerReport) -> Result<(), ReportError> {
        let live = self.live.borrow().clone();
        let status = status(&live, report, self.clock.now());
        apply_status(&self.client, FIELD_MANAGER, &live, &status)
            .await
            .map(drop)
            .map_err(|error| ReportError(format!("{error}: {}", error.detail())))
    }

    async fn overwritten(&self) {
        let mut live = self.live.clone();
        loop {
            let is_spoken_for = live.borrow_and_update().status().is_some_and(|status| {
                status
                    .conditions
                    .iter()
                    .any(|c| OF_WORKER.contains(&c.type_.as_str()) && c.reason == NOT_READY)
            });
            if is_spoken_for {
                return;
            }
            if live.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}
