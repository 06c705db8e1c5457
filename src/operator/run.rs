//! The operator as a process: waits for the lease, then reconciles both kinds until it ends.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use tokio_util::sync::CancellationToken;

use super::{
    context::{ConnectFactory, Ctx, Settings},
    controller::{Bots, Ends, control, known, watch_children, watch_everywhere},
    entropy::SystemEntropy,
    labels::FIELD_MANAGER,
    metrics::Metrics,
    seen::Recent,
};
use crate::{
    crd::{AdminBot, AuditBot, Bot},
    domain::{Clock as _, SystemClock},
    kube_util::{
        apply,
        backoff::Backoff,
        brake::Brake,
        events::Events,
        lease::{Elector, LeaseConfig, Loss},
        readiness::Readiness,
        watch::PerNamespace,
    },
};

/// Part of the readiness: the API server has answered about the lease.
pub const LEASE: &str = "lease";
/// How often counts are taken and watches of empty namespaces stopped.
const HOUSEKEEPING: Duration = Duration::from_secs(15);
/// Failures of so many bots are remembered.
const BACKOFF_CAPACITY: usize = 20_000;
/// That so many objects were written lately is remembered.
const BRAKE_CAPACITY: usize = 50_000;

/// What the operator is made of.
pub struct Operator {
    /// The Kubernetes API.
    pub client: Client,
    /// Opens connections to homeservers.
    pub connect: ConnectFactory,
    /// Settings.
    pub settings: Settings,
    /// Metrics.
    pub metrics: Metrics,
    /// The lease.
    pub lease: LeaseConfig,
    /// Reconciliations at the same time, per kind.
    pub concurrency: u16,
    /// Which parts have started.
    pub readiness: Readiness,
    /// What this process runs with, for the console, which records it.
    pub configuration: Option<ConfigMap>,
}

impl std::fmt::Debug for Operator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Operator").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Why the operator must end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Another process may already do the same work.
    #[error("no longer the leader")]
    Lost(#[source] Loss),
    /// The reconciliations ended by themselves.
    #[error("the controllers ended")]
    Ended,
}

impl Operator {
    /// Runs until `soft` is cancelled or the lease is lost.
    pub async fn run(self, soft: CancellationToken) -> Result<(), RunError> {
        let mut elector = Elector::new(self.client.clone(), self.lease.clone(), || SystemClock.now());
        tokio::select! {
            () = soft.cancelled() => return Ok(()),
            () = elector.acquire(|| self.readiness.done(LEASE)) => {}
        }
        tracing::info!(holder = self.lease.holder, "holds the lease");
        self.metrics.leads(true);
        self.say_configuration().await;
        let metrics = self.metrics.clone();
        let mut controllers = std::pin::pin!(self.control(soft.clone()));
        let outcome = tokio::select! {
            loss = elector.hold() => Err(RunError::Lost(loss)),
            () = &mut controllers => if soft.is_cancelled() { Ok(()) } else { Err(RunError::Ended) },
        };
        metrics.leads(false);
        if !matches!(outcome, Err(RunError::Lost(_)))
            && let Err(error) = elector.release().await
        {
            tracing::warn!(%error, "cannot release the lease");
        }
        outcome
    }

    /// Nothing depends on it but a record.
    async fn say_configuration(&self) {
        let Some(configuration) = &self.configuration else { return };
        if let Err(error) = apply(&self.client, FIELD_MANAGER, configuration).await {
            tracing::warn!(%error, detail = error.detail(), "cannot say the configuration");
        }
    }

    /// Reconciles both kinds until `soft` is cancelled.
    async fn control(self, soft: CancellationToken) {
        let (admin_bots, admin_ends) = Bots::<AdminBot>::new();
        let (audit_bots, audit_ends) = Bots::<AuditBot>::new();
        let namespaces = Arc::new(PerNamespace::default());
        let (concurrency, metrics) = (self.concurrency, self.metrics.clone());
        let ctx = self.context((admin_bots.clone(), audit_bots.clone()), &namespaces, &soft);
        let kinds = futures::future::join(
            begin(&ctx, &admin_bots, admin_ends, concurrency, &soft),
            begin(&ctx, &audit_bots, audit_ends, concurrency, &soft),
        );
        let housekeeping = async {
            futures::future::join(known(&admin_bots), known(&audit_bots)).await;
            let mut ticks = tokio::time::interval(HOUSEKEEPING);
            loop {
                ticks.tick().await;
                let mut wanted = admin_bots.namespaces();
                wanted.append(&mut audit_bots.namespaces());
                namespaces.retain(&wanted);
                metrics.watching(namespaces.namespaces().len());
                let (admin_uids, audit_uids) = (admin_bots.uids(), audit_bots.uids());
                ctx.recent.retain(|uid| admin_uids.contains(uid) || audit_uids.contains(uid));
                count(&metrics, &admin_bots);
                count(&metrics, &audit_bots);
            }
        };
        let bots = (admin_bots.clone(), audit_bots.clone());
        let children = async {
            // Who is not known yet cannot be looked at, and is looked at without a reason anyway.
            futures::future::join(known(&admin_bots), known(&audit_bots)).await;
            watch_everywhere(Arc::clone(&ctx), bots).await;
        };
        tokio::select! {
            _ = kinds => {}
            () = housekeeping => {}
            () = children => {}
        }
    }

    fn context(
        self,
        bots: (Bots<AdminBot>, Bots<AuditBot>),
        namespaces: &Arc<PerNamespace>,
        soft: &CancellationToken,
    ) -> Arc<Ctx> {
        let claimants = bots.clone();
        let (namespaces, soft) = (Arc::clone(namespaces), soft.clone());
        Arc::new_cyclic(|weak: &std::sync::Weak<Ctx>| {
            let weak = weak.clone();
            let client = self.client.clone();
            Ctx {
                events: Events::new(self.client.clone(), FIELD_MANAGER, Some(self.lease.holder.clone())),
                client: self.client,
                connect: self.connect,
                clock: Arc::new(SystemClock),
                entropy: Arc::new(SystemEntropy),
                brake: Brake::new(self.settings.resync, BRAKE_CAPACITY),
                settings: self.settings,
                metrics: self.metrics,
                backoff: Backoff::new(Duration::from_secs(1), Duration::from_mins(5), BACKOFF_CAPACITY),
                claims: Arc::new(move |server, username| {
                    let mut claims = claimants.0.claims(server, username);
                    claims.extend(claimants.1.claims(server, username));
                    claims
                }),
                watch_namespace: Arc::new(move |namespace| {
                    let Some(ctx) = weak.upgrade() else { return };
                    let (client, bots, name) = (client.clone(), bots.clone(), namespace.to_owned());
                    namespaces.ensure(namespace, &soft, || watch_children(client, name, ctx, bots));
                }),
                recent: Recent::default(),
            }
        })
    }
}

fn begin<B: Bot>(
    ctx: &Arc<Ctx>,
    bots: &Bots<B>,
    ends: Ends<B>,
    concurrency: u16,
    soft: &CancellationToken,
) -> impl Future<Output = ()> + Send + use<B> {
    control(Arc::clone(ctx), bots, ends, concurrency, soft.clone())
}

fn count<B: Bot>(metrics: &Metrics, bots: &Bots<B>) {
    let (ready, not_ready, unknown) = bots.by_readiness();
    metrics.bots(B::KIND, ready, not_ready, unknown);
    metrics.queued(B::KIND, bots.queue_depth());
}
