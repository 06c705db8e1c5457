//! Synapse through its client-server and admin APIs.
//!
//! One [`Connection`] per homeserver: it holds the connection pool and opens the three kinds of
//! access. Redirects are not followed, since a bearer token would go where they lead.

mod admin;
mod answer;
mod entry;
mod http;
mod inspect;
mod rooms;
mod user;

use std::{fmt, sync::Arc, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use url::Url;

use self::http::Http;
pub use self::inspect::{ACCOUNT_DETAILS, ACCOUNT_LISTED};
use super::{Admin, Connect, Entry, Inspect, Session, User};
use crate::domain::{Clock, SystemClock};

/// How to reach a homeserver.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Base URL, admin API included, for example `http://synapse.tenant.svc:8008`.
    pub url: Url,
    /// Certificates in PEM form that are trusted besides the system's.
    pub ca_pem: Option<Vec<u8>>,
    /// HTTP proxy; its URL may hold a password. Without one, none is used: the variables of the
    /// environment are not read.
    pub proxy: Option<SecretString>,
    /// Hosts, domains and networks that are reached without it, separated by commas.
    pub no_proxy: Option<String>,
    /// Limit of an ordinary call; those that make the homeserver work longer have their own.
    pub timeout: Duration,
    /// Dates the expiry of puppet tokens.
    pub clock: Arc<dyn Clock>,
}

impl Settings {
    /// Settings for a URL, all else by default.
    pub fn new(url: Url) -> Self {
        Self {
            url,
            ca_pem: None,
            proxy: None,
            no_proxy: None,
            timeout: Duration::from_secs(15),
            clock: Arc::new(SystemClock),
        }
    }
}

/// Settings with which no connection can be opened.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// Not `http` or `https`, no host, or a user name or password in it.
    #[error("homeserver URL must be http or https, with a host and without user name or password")]
    Url,
    /// No certificate can be read from the PEM text.
    #[error("CA certificates of the homeserver cannot be read")]
    Ca(#[source] Option<reqwest::Error>),
    /// The proxy's URL cannot be used.
    #[error("proxy URL cannot be used")]
    Proxy,
    /// The TLS library refuses the configuration.
    #[error("TLS cannot be set up")]
    Tls(#[source] reqwest::Error),
}

/// Access to one Synapse.
#[derive(Clone)]
pub struct Connection {
    http: Arc<Http>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("host", &self.http.host()).finish_non_exhaustive()
    }
}

impl Connection {
    /// Prepares a connection; nothing is sent yet.
    pub fn new(settings: &Settings) -> Result<Self, SettingsError> {
        let client = build_client(settings)?;
        Ok(Self { http: Arc::new(Http::new(client, settings)?) })
    }
}

impl Connect for Connection {
    fn entry(&self) -> Box<dyn Entry> {
        Box::new(entry::SynapseEntry { http: Arc::clone(&self.http) })
    }

    fn admin(&self, session: Session) -> Box<dyn Admin> {
        Box::new(admin::SynapseAdmin { http: Arc::clone(&self.http), session })
    }

    fn inspect(&self, session: Session) -> Box<dyn Inspect> {
        Box::new(inspect::SynapseInspect { http: Arc::clone(&self.http), session })
    }

    fn user(&self, session: Session) -> Box<dyn User> {
        Box::new(user::SynapseUser { http: Arc::clone(&self.http), session })
    }
}

fn build_client(settings: &Settings) -> Result<reqwest::Client, SettingsError> {
    // Harmless when main has done it already; without it a library user or a test would panic.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let extra = extra_roots(settings)?;
    let base = || -> Result<reqwest::ClientBuilder, SettingsError> {
        let builder = reqwest::Client::builder()
            .user_agent(concat!("ems-bots/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(settings.timeout.min(Duration::from_secs(10)))
            .pool_idle_timeout(Duration::from_secs(30));
        match &settings.proxy {
            None => Ok(builder.no_proxy()),
            Some(url) => {
                let proxy = reqwest::Proxy::all(url.expose_secret()).map_err(|_| SettingsError::Proxy)?;
                let exceptions = settings.no_proxy.as_deref().and_then(reqwest::NoProxy::from_string);
                Ok(builder.proxy(proxy.no_proxy(exceptions)))
            }
        }
    };
    if settings.url.scheme() == "http" {
        // A minimal image has no system certificates, and plain HTTP needs none.
        return base()?.tls_certs_only(extra).build().map_err(SettingsError::Tls);
    }
    match base()?.tls_certs_merge(extra.clone()).build() {
        Ok(client) => Ok(client),
        // No system certificates at all: the given ones alone decide.
        Err(_) if !extra.is_empty() => base()?.tls_certs_only(extra).build().map_err(SettingsError::Tls),
        Err(error) => Err(SettingsError::Tls(error)),
    }
}

fn extra_roots(settings: &Settings) -> Result<Vec<reqwest::Certificate>, SettingsError> {
    let Some(pem) = &settings.ca_pem else { return Ok(Vec::new()) };
    let roots = reqwest::Certificate::from_pem_bundle(pem).map_err(|error| SettingsError::Ca(Some(error)))?;
    if roots.is_empty() { Err(SettingsError::Ca(None)) } else { Ok(roots) }
}
