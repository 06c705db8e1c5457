//! How a program in a worker's pod reaches the homeserver.

use std::{path::PathBuf, sync::Arc};

use anyhow::Context as _;

use super::files::Files;
use crate::{
    domain::Clock,
    homeserver::synapse::{Connection, Settings},
};

/// Where the homeserver and the Secrets are; the operator sets these in the pod.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct HomeserverArgs {
    /// URL of the homeserver, admin API included.
    #[arg(long = "homeserver-url", env = "EMS_HOMESERVER_URL")]
    pub(super) url: url::Url,
    /// HTTP proxy between this pod and the homeserver.
    #[arg(long, env = "EMS_PROXY_URL")]
    pub(super) proxy_url: Option<String>,
    /// Hosts that are reached without the proxy, separated by commas.
    #[arg(long, env = "EMS_NO_PROXY")]
    pub(super) no_proxy: Option<String>,
    /// Folder with the mounted Secrets.
    #[arg(long, env = "EMS_CONFIG_DIR", default_value = "/etc/ems-bots")]
    pub(super) config_dir: PathBuf,
}

impl HomeserverArgs {
    /// The mounted Secrets.
    pub(in crate::cli) fn files(&self) -> Files {
        Files::new(&self.config_dir)
    }

    /// The authority of the homeserver's certificate, if it is a private one.
    pub(super) fn ca(&self) -> Option<Vec<u8>> {
        self.files().optional("homeserver-ca/ca.crt").map(String::into_bytes)
    }

    /// Opens it.
    pub(in crate::cli) fn connect(&self, clock: Arc<dyn Clock>) -> anyhow::Result<Connection> {
        let mut settings = Settings::new(self.url.clone());
        settings.ca_pem = self.ca();
        settings.proxy = self.proxy_url.clone().map(Into::into);
        settings.no_proxy.clone_from(&self.no_proxy);
        settings.clock = clock;
        Connection::new(&settings).context("--homeserver-url or its CA cannot be used")
    }
}
