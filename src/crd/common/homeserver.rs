//! `spec.homeserver`.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    refs::{CaSecretRef, SecretKeyRef},
    rules,
};

/// Secret that is used when `adminApi` is left out.
pub const DEFAULT_HOMESERVER_SECRET: &str = "ems-bots-homeserver";
/// Its key, which holds the registration shared secret.
pub const DEFAULT_HOMESERVER_SECRET_KEY: &str = "registration-shared-secret";

/// The homeserver that the bot works for.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct HomeserverSpec {
    /// Name of the homeserver as it stands in user IDs after the colon, for example
    /// `example.org`. Cannot be changed.
    #[schemars(length(min = 1, max = 230))]
    #[x_kube(validation = rules::server_name(), validation = rules::immutable("serverName"))]
    pub server_name: String,
    /// Where pods reach the homeserver, its admin API (`/_synapse/admin`) included. A Secret with
    /// a credential for it must carry the annotation `ems.element.io/homeserver` with exactly this
    /// URL, else the credential is not sent.
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = rules::http_url("url"))]
    pub url: String,
    /// Where browsers reach the homeserver. Left out: what the server's
    /// `.well-known/matrix/client` says.
    #[serde(rename = "publicURL", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = rules::http_url("publicURL"))]
    pub public_url: Option<String>,
    /// Certificates of a private certificate authority that signed the certificate of `url`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<CaSecretRef>,
    /// Plan of the homeserver. The bots are add-ons of these plans.
    pub plan: Plan,
    /// Credential for the admin API. Left out: the registration shared secret in the key
    /// `registration-shared-secret` of the Secret `ems-bots-homeserver`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_api: Option<AdminApiSpec>,
}

/// Plan of a hosted homeserver.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// Gold.
    Gold,
    /// Platinum.
    Platinum,
}

/// Credential for the homeserver's admin API: exactly one of the three.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.accessToken), has(self.registrationSharedSecret), has(self.mas)].filter(given, given).size() == 1")
    .message("adminApi must have exactly one of accessToken, registrationSharedSecret and mas"))]
pub struct AdminApiSpec {
    /// Access token of a server admin. It is used to create the bot's own admin account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_token: Option<SecretKeyRef>,
    /// Synapse's `registration_shared_secret`. It is used to create the bot's own admin account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registration_shared_secret: Option<SecretKeyRef>,
    /// Client credentials of the Matrix Authentication Service. Not supported yet: a bot with
    /// this credential reports so in its condition `AccountReady`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mas: Option<MasSpec>,
}

/// A client of the Matrix Authentication Service.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct MasSpec {
    /// Where pods reach the service. Left out: the issuer that the homeserver names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = rules::http_url("url"))]
    pub url: Option<String>,
    /// Client ID.
    #[serde(rename = "clientID")]
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(validation = rules::one_line("clientID"))]
    pub client_id: String,
    /// Client secret.
    pub client_secret: SecretKeyRef,
}

/// The credential for the admin API, with the default filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminApi {
    /// Access token of a server admin.
    AccessToken(SecretKeyRef),
    /// Registration shared secret.
    RegistrationSharedSecret(SecretKeyRef),
    /// Matrix Authentication Service.
    Mas(MasSpec),
}

impl AdminApi {
    /// The key of a Secret that it comes from.
    pub fn secret_key(&self) -> Option<&SecretKeyRef> {
        match self {
            Self::AccessToken(key) | Self::RegistrationSharedSecret(key) => Some(key),
            Self::Mas(mas) => Some(&mas.client_secret),
        }
    }
}

impl HomeserverSpec {
    /// The credential for the admin API; the default where the resource names none. `None` if the
    /// resource names none or several in `adminApi`, which the schema refuses.
    pub fn admin_api(&self) -> Option<AdminApi> {
        let Some(spec) = &self.admin_api else {
            return Some(AdminApi::RegistrationSharedSecret(SecretKeyRef {
                name: DEFAULT_HOMESERVER_SECRET.to_owned(),
                key: DEFAULT_HOMESERVER_SECRET_KEY.to_owned(),
            }));
        };
        match (&spec.access_token, &spec.registration_shared_secret, &spec.mas) {
            (Some(token), None, None) => Some(AdminApi::AccessToken(token.clone())),
            (None, Some(secret), None) => Some(AdminApi::RegistrationSharedSecret(secret.clone())),
            (None, None, Some(mas)) => Some(AdminApi::Mas(mas.clone())),
            _ => None,
        }
    }
}
