//! What every reconciliation gets: clients, settings, time, randomness, and what is remembered.

use std::sync::Arc;

use kube::Client;
use url::Url;

use super::{entropy::Entropy, metrics::Metrics, seen::Recent, validate::Claim};
use crate::{
    domain::{Clock, Localpart, ServerName},
    homeserver::{Connect, Result as HomeserverResult},
    kube_util::{backoff::Backoff, brake::Brake, events::Events},
};

/// How to reach a homeserver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HomeserverTarget {
    /// `spec.homeserver.url`.
    pub url: Url,
    /// Certificates of a private authority, PEM.
    pub ca_pem: Option<Vec<u8>>,
}

/// Opens connections to homeservers.
pub type ConnectFactory = Arc<dyn Fn(HomeserverTarget) -> HomeserverResult<Arc<dyn Connect>> + Send + Sync>;

/// Finds every bot that claims an account, of both kinds and in all namespaces.
pub type Claims = Arc<dyn Fn(&ServerName, &Localpart) -> Vec<Claim> + Send + Sync>;

/// Asks that the children of a namespace be watched.
pub type WatchNamespace = Arc<dyn Fn(&str) + Send + Sync>;

/// What whoever installs the operator decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Image of the worker.
    pub worker_image: String,
    /// Its pull policy.
    pub image_pull_policy: Option<String>,
    /// Its pull Secrets, by name in the tenant's namespace.
    pub image_pull_secrets: Vec<String>,
    /// Hosts of Element Web that people may be sent to.
    pub allowed_element_web_hosts: Vec<String>,
    /// Ports of the API server as pods reach it, for the network policy.
    pub api_server_ports: Vec<u16>,
    /// More ports that the workers' network policies let out.
    pub worker_egress_ports: Vec<u16>,
    /// Nothing is reconciled.
    pub paused: bool,
    /// Everything is looked at again after this time.
    pub resync: std::time::Duration,
    /// Namespace and name of the operator's `ServiceAccount`, for the command that a condition prints.
    pub service_account: (String, String),
    /// Namespace and name of the console's `ServiceAccount`, if there is a console.
    pub console: Option<(String, String)>,
}

/// What every reconciliation gets.
pub struct Ctx {
    /// The Kubernetes API.
    pub client: Client,
    /// Opens connections to homeservers.
    pub connect: ConnectFactory,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Settings.
    pub settings: Settings,
    /// Metrics.
    pub metrics: Metrics,
    /// Events.
    pub events: Events,
    /// Failures per bot, by UID.
    pub backoff: Backoff<String>,
    /// Objects that somebody else changes again and again.
    pub brake: Brake,
    /// Who claims which account.
    pub claims: Claims,
    /// Asks that the children of a namespace be watched.
    pub watch_namespace: WatchNamespace,
    /// Which bots were looked at lately.
    pub recent: Recent,
}

impl std::fmt::Debug for Ctx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ctx").field("settings", &self.settings).finish_non_exhaustive()
    }
}
