//! Leader election with a `coordination.k8s.io` Lease.
//!
//! A renewal carries the `resourceVersion` of what was read, so that two candidates never both
//! win. Whether a lease has run out is judged by how long this process has seen it unchanged, not
//! by the clock of the machine that wrote it. Who cannot renew in time is no longer the leader and
//! must end the process: whatever it was doing may already be done by another.

use std::time::Duration;

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ObjectMeta, PostParams},
};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::error::{Error, Result, describe_name};

/// Which lease, for whom, with which times.
#[derive(Debug, Clone)]
pub struct LeaseConfig {
    /// Namespace of the lease.
    pub namespace: String,
    /// Name of the lease.
    pub name: String,
    /// Who holds it: the pod's name.
    pub holder: String,
    /// Other candidates wait this long after the last renewal that they saw.
    pub duration: Duration,
    /// Without a renewal for this long the holder gives up; shorter than `duration`.
    pub renew_deadline: Duration,
    /// Time between two attempts.
    pub retry_period: Duration,
}

impl LeaseConfig {
    /// The times that Kubernetes' own components use.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>, holder: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            holder: holder.into(),
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

/// Why somebody is no longer the leader.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Loss {
    /// Another holder is written in the lease.
    #[error("the lease was taken by {0}")]
    Taken(String),
    /// The API server did not accept a renewal in time.
    #[error("the lease could not be renewed within {0:?}")]
    NotRenewed(Duration),
}

/// A candidate for a lease.
pub struct Elector {
    api: Api<Lease>,
    config: LeaseConfig,
    now: Box<dyn Fn() -> Timestamp + Send + Sync>,
    seen: Option<Seen>,
    renewed: Option<Instant>,
}

impl std::fmt::Debug for Elector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Elector").field("config", &self.config).finish_non_exhaustive()
    }
}

/// The last version of the lease that was read, and since when it is unchanged.
struct Seen {
    version: Option<String>,
    since: Instant,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attempt {
    /// This candidate holds the lease.
    Held,
    /// Another one holds it.
    HeldBy(String),
    /// Another one was faster; look again.
    Contended,
}

impl Elector {
    /// `now` is written into the lease for people to read; nothing is decided by it.
    pub fn new(
        client: Client,
        config: LeaseConfig,
        now: impl Fn() -> Timestamp + Send + Sync + 'static,
    ) -> Self {
        let api = Api::namespaced(client, &config.namespace);
        Self { api, config, now: Box::new(now), seen: None, renewed: None }
    }

    /// Waits until this candidate holds the lease; `answered` is called whenever the API server
    /// has answered.
    pub async fn acquire(&mut self, answered: impl Fn()) {
        loop {
            match timeout(self.config.renew_deadline, self.attempt()).await {
                Ok(Ok(attempt)) => {
                    answered();
                    if attempt == Attempt::Held {
                        return;
                    }
                }
                Ok(Err(error)) => {
                    tracing::warn!(%error, detail = error.detail(), "cannot try for the lease");
                }
                Err(_) => tracing::warn!("trying for the lease took too long"),
            }
            sleep(self.config.retry_period).await;
        }
    }

    /// Renews the lease until it is lost. Call after [`Self::acquire`].
    pub async fn hold(&mut self) -> Loss {
        loop {
            let deadline = self.renewed.unwrap_or_else(Instant::now) + self.config.renew_deadline;
            let not_renewed = Loss::NotRenewed(self.config.renew_deadline);
            if timeout_at(deadline, sleep(self.config.retry_period)).await.is_err() {
                return not_renewed;
            }
            match timeout_at(deadline, self.attempt()).await {
                Ok(Ok(Attempt::Held | Attempt::Contended)) => {}
                Ok(Ok(Attempt::HeldBy(other))) => return Loss::Taken(other),
                Ok(Err(error)) => {
                    tracing::warn!(%error, detail = error.detail(), "cannot renew the lease");
                }
                Err(_) => return not_renewed,
            }
        }
    }

    /// Gives the lease back, so that the next candidate need not wait.
    pub async fn release(&mut self) -> Result<()> {
        let Some(mut lease) = self.read().await? else { return Ok(()) };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() != Some(&self.config.holder) {
            return Ok(());
        }
        spec.holder_identity = None;
        spec.lease_duration_seconds = Some(1);
        spec.renew_time = Some(MicroTime((self.now)()));
        self.renewed = None;
        match self.api.replace(&self.config.name, &PostParams::default(), &lease).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            Err(error) => Err(self.error("release", error)),
        }
    }

    /// One attempt to take or renew the lease.
    pub async fn attempt(&mut self) -> Result<Attempt> {
        // The time before the request counts: the renewal may have been stored right then.
        let started = Instant::now();
        let Some(lease) = self.read().await? else { return self.create(started).await };
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone());
        match holder.filter(|holder| !holder.is_empty()) {
            Some(other) if other != self.config.holder && !self.has_run_out(&lease) => {
                Ok(Attempt::HeldBy(other))
            }
            previous => self.take(lease, previous, started).await,
        }
    }

    async fn read(&self) -> Result<Option<Lease>> {
        self.api.get_opt(&self.config.name).await.map_err(|e| self.error("get", e))
    }

    fn has_run_out(&mut self, lease: &Lease) -> bool {
        let now = Instant::now();
        let version = lease.resource_version();
        let written = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds);
        let duration = written
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map_or(self.config.duration, Duration::from_secs);
        match &self.seen {
            Some(seen) if seen.version == version => now.duration_since(seen.since) >= duration,
            _ => {
                self.seen = Some(Seen { version, since: now });
                false
            }
        }
    }

    async fn create(&mut self, started: Instant) -> Result<Attempt> {
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(self.config.name.clone()),
                namespace: Some(self.config.namespace.clone()),
                ..ObjectMeta::default()
            },
            spec: Some(self.spec(None, None)),
        };
        match self.api.create(&PostParams::default(), &lease).await {
            Ok(_) => Ok(self.is_held(started)),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(Attempt::Contended),
            Err(error) => Err(self.error("create", error)),
        }
    }

    async fn take(
        &mut self,
        mut lease: Lease,
        previous: Option<String>,
        started: Instant,
    ) -> Result<Attempt> {
        let is_renewal = previous.as_deref() == Some(&self.config.holder);
        lease.spec = Some(self.spec(lease.spec.take(), is_renewal.then_some(())));
        match self.api.replace(&self.config.name, &PostParams::default(), &lease).await {
            Ok(_) => Ok(self.is_held(started)),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(Attempt::Contended),
            Err(error) => Err(self.error("renew", error)),
        }
    }

    fn spec(&self, old: Option<LeaseSpec>, renewal: Option<()>) -> LeaseSpec {
        let now = MicroTime((self.now)());
        let mut spec = old.unwrap_or_default();
        if renewal.is_none() {
            spec.acquire_time = Some(now.clone());
            spec.lease_transitions = Some(spec.lease_transitions.map_or(0, |n| n.saturating_add(1)));
        }
        spec.holder_identity = Some(self.config.holder.clone());
        spec.lease_duration_seconds = i32::try_from(self.config.duration.as_secs()).ok();
        spec.renew_time = Some(now);
        spec
    }

    fn is_held(&mut self, started: Instant) -> Attempt {
        self.renewed = Some(started);
        self.seen = None;
        Attempt::Held
    }

    fn error(&self, verb: &'static str, error: kube::Error) -> Error {
        Error::new(verb, describe_name::<Lease>(Some(&self.config.namespace), &self.config.name), error)
    }
}
