//! `spec.elementWeb`.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::rules;

/// The Element Web in which people sign in as the bot.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ElementWebSpec {
    /// Its host. Must be on the list of hosts that the platform allows (chart value
    /// `elementWeb.allowedHosts`): a login token is sent there.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = rules::host("host"))]
    pub host: String,
    /// Path on that host, if Element Web is not at its root.
    #[serde(default = "root")]
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(validation = Rule::new("self.matches('^/[A-Za-z0-9._~/-]*$') && !self.contains('..') && !self.contains('//')")
        .message("path must begin with a slash and have letters, digits and ._~/- only"))]
    pub path: String,
}

fn root() -> String {
    "/".to_owned()
}
