//! The worker's custom resource: watched for instructions, its status applied from reports.

use std::sync::Arc;

use anyhow::Context as _;
use async_trait::async_trait;
use futures::StreamExt as _;
use kube::core::{DeserializeGuard, DynamicObject};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::status::status;
use crate::{
    crd::{Bot, convert::instructions},
    domain::{
        BotName, Clock, SystemClock, revision,
        trail::TrailPoint,
        worker::{Instructions, WorkerReport},
    },
    kube_util::{apply_status, watch::one},
    lifecycle::Lifecycle,
    operator::status::{WORKER_NOT_READY, types},
    worker::ports::{ReportError, Reporter},
};

/// Field manager of the worker.
const FIELD_MANAGER: &str = "ems-bots-worker";

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
        let Some(object) = object else {
            tracing::info!(%bot, "the custom resource does not exist");
            continue;
        };
        let mark = revision::mark(object.data.get("spec"));
        let last = senders.as_ref().map(|(sender, _)| sender.borrow().clone());
        let read = typed(object).and_then(|object| read::<B>(&bot, object, kept.clone(), last));
        let Some((instructions, live)) = read else { continue };
        let instructions = Instructions { mark, ..instructions };
        match (&senders, live) {
            (Some((sender, live_sender)), live) => {
                if let Some(live) = live {
                    live_sender.send_replace(live);
                }
                sender.send_replace(instructions);
            }
            (None, None) => {}
            (None, Some(live)) => {
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

/// The object as its type has it, or why it does not fit.
fn typed<B: Bot>(object: DynamicObject) -> Option<DeserializeGuard<B>> {
    serde_json::to_value(object).and_then(serde_json::from_value).ok()
}

/// What cannot be acted on changes nothing: the last good instructions stay. Only that the custom
/// resource is being deleted is followed nevertheless, or its trail would never be closed.
fn read<B: Bot>(
    bot: &BotName,
    object: DeserializeGuard<B>,
    kept: Option<TrailPoint>,
    last: Option<Instructions>,
) -> Option<(Instructions, Option<B>)> {
    let (metadata, live) = match object {
        DeserializeGuard(Ok(object)) => match instructions(&object, kept) {
            Ok(instructions) => return Some((instructions, Some(object))),
            Err(error) => {
                tracing::warn!(%bot, %error, "the custom resource cannot be acted on");
                (object.meta().clone(), Some(object))
            }
        },
        DeserializeGuard(Err(error)) => {
            tracing::warn!(%bot, %error, "the custom resource does not fit its schema");
            (error.metadata, None)
        }
    };
    metadata.deletion_timestamp.as_ref()?;
    let leaving = Instructions {
        uid: metadata.uid.unwrap_or_default(),
        generation: metadata.generation.unwrap_or_default(),
        deleting: true,
        ..last?
    };
    Some((leaving, live))
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
                    .any(|c| types::OF_WORKER.contains(&c.type_.as_str()) && c.reason == WORKER_NOT_READY)
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{crd::AuditBot, domain::BotKind};

    fn seen(spec: &Value, deleting: bool) -> DeserializeGuard<AuditBot> {
        let mut object = json!({
            "apiVersion": "ems.element.io/v1alpha1", "kind": "AuditBot", "spec": spec,
            "metadata": {"name": "b", "namespace": "n", "uid": "life", "generation": 7},
        });
        if deleting {
            object["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
        typed(serde_json::from_value(object).unwrap()).unwrap()
    }

    fn told(spec: &Value, deleting: bool, last: Option<Instructions>) -> Option<Instructions> {
        let bot = BotName { namespace: "n".into(), name: "b".into(), kind: BotKind::Audit };
        read(&bot, seen(spec, deleting), None, last).map(|(instructions, _)| instructions)
    }

    #[test]
    fn a_deletion_is_followed_also_where_nothing_else_can_be() {
        let homeserver = json!({"serverName": "example.org", "url": "http://synapse:8008", "plan": "Gold"});
        let good = json!({"homeserver": homeserver, "displayName": "The Bot"});
        let last = told(&good, false, None).unwrap();
        assert!(!last.deleting);
        let unfit = json!({"homeserver": 1});
        let not_usable = json!({"homeserver": homeserver, "rooms": {"creatorPattern": "("}});
        for broken in [unfit, not_usable] {
            assert!(told(&broken, false, Some(last.clone())).is_none(), "the last good ones stay: {broken}");
            let leaving = told(&broken, true, Some(last.clone())).unwrap();
            assert!(leaving.deleting, "{broken}");
            assert_eq!((leaving.uid.as_str(), leaving.generation), ("life", 7), "{broken}");
            assert_eq!(leaving.display_name, "The Bot", "the rest stays: {broken}");
            assert!(told(&broken, true, None).is_none(), "there is nothing to go on from: {broken}");
        }
    }
}
