//! The validate step: from the raw specification and what was read to what all later steps use. (no client)

mod workload;

use k8s_openapi::{
    api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::OwnerReference, jiff::Timestamp,
};
use kube::ResourceExt as _;
use secrecy::SecretString;
use url::Url;

pub use workload::{GivenBucket, GivenRole, Workload};

use super::{dereference::Found, error::Problem, generated::require, labels, names::Names};
use crate::{
    crd::{
        Bot, annotations,
        common::{AdminApi, CaSecretRef, DeletionPolicy, SecretKeyRef},
    },
    domain::{BotKind, Localpart, ServerName, UserId},
};

/// A bot that can be worked for.
#[derive(Debug, Clone)]
pub struct Validated {
    /// Its kind.
    pub kind: BotKind,
    /// Its namespace.
    pub namespace: String,
    /// Name of the custom resource.
    pub name: String,
    /// UID of the custom resource.
    pub uid: String,
    /// The custom resource as owner of its children.
    pub owner: OwnerReference,
    /// Names of its children.
    pub names: Names,
    /// Identity as a label value.
    pub identity: String,
    /// Name of the homeserver.
    pub server_name: ServerName,
    /// Where the homeserver is reached.
    pub homeserver_url: Url,
    /// Where the CA of the homeserver is.
    pub homeserver_ca: Option<CaSecretRef>,
    /// The CA of the homeserver, PEM.
    pub homeserver_ca_pem: Option<Vec<u8>>,
    /// Credential for the admin API.
    pub credential: Credential,
    /// Localpart of the bot.
    pub username: Localpart,
    /// User id of the bot.
    pub user_id: UserId,
    /// Display name of the bot.
    pub display_name: String,
    /// Localpart of the worker's admin account.
    pub admin_localpart: Localpart,
    /// Lock the account.
    pub suspend: bool,
    /// What to do on the homeserver when the bot goes.
    pub deletion_policy: DeletionPolicy,
    /// The status says that there was a phrase.
    pub had_phrase: bool,
    /// The status says that there was an account.
    pub had_account: bool,
    /// What the worker's workload is made of, or why there can be none yet.
    pub workload: Result<Workload, Problem>,
}

/// Credential for the admin API.
#[derive(Debug, Clone)]
pub enum Credential {
    /// A server admin's token.
    AccessToken(SecretString),
    /// The registration shared secret.
    SharedSecret(SecretString),
}

/// A bot that wants an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// UID of the custom resource.
    pub uid: String,
    /// Since when.
    pub since: Timestamp,
    /// Its kind.
    pub kind: BotKind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Claim {
    /// The claim of this bot.
    pub fn of<B: Bot>(bot: &B) -> Self {
        let since = bot.creation_timestamp().map_or(Timestamp::MAX, |time| time.0);
        let (namespace, name) = (bot.namespace().unwrap_or_default(), bot.name_any());
        Self { uid: bot.uid().unwrap_or_default(), since, kind: B::KIND, namespace, name }
    }
}

/// Turns the specification and what was read into a bot that can be worked for.
pub fn validate<B: Bot>(
    bot: &B,
    names: &Names,
    found: &Found,
    claims: &[Claim],
) -> Result<Validated, Problem> {
    let common = bot.common();
    let (server_name, username) = account_of(bot)?;
    let admin_localpart = names.admin_localpart(&username).map_err(|e| unusable("spec.username", &e))?;
    check_claims(&Claim::of(bot), claims, &username, &server_name)?;
    let homeserver_url: Url =
        common.homeserver.url.parse().map_err(|_| invalid("spec.homeserver.url", "is not a URL"))?;
    let credential = credential(bot, found)?;
    let homeserver_ca_pem =
        ca(common.homeserver.ca_secret_ref.as_ref(), found.homeserver_ca.as_ref(), Problem::account)?;
    let status = bot.status();
    let user_id = UserId::from_parts(&username, &server_name);
    let workload = workload::workload(bot, &homeserver_url, found);
    Ok(Validated {
        kind: B::KIND,
        namespace: bot.namespace().unwrap_or_default(),
        name: bot.name_any(),
        uid: bot.uid().unwrap_or_default(),
        owner: owner(bot),
        names: names.clone(),
        identity: labels::identity(B::KIND, &server_name, &username),
        server_name,
        homeserver_url,
        homeserver_ca: common.homeserver.ca_secret_ref.clone(),
        homeserver_ca_pem,
        credential,
        username,
        user_id,
        display_name: common.display_name.to_owned(),
        admin_localpart,
        suspend: common.suspend,
        deletion_policy: common.deletion_policy,
        had_phrase: status.is_some_and(|status| status.backup_phrase.is_some()),
        had_account: status.is_some_and(|status| status.user_id.is_some()),
        workload,
    })
}

/// The account that a bot claims.
pub fn account_of<B: Bot>(bot: &B) -> Result<(ServerName, Localpart), Problem> {
    let common = bot.common();
    let server_name = ServerName::parse(common.homeserver.server_name.as_str())
        .map_err(|e| unusable("spec.homeserver.serverName", &e))?;
    let username = Localpart::parse(common.username).map_err(|e| unusable("spec.username", &e))?;
    Ok((server_name, username))
}

fn unusable(field: &str, error: &crate::domain::IdError) -> Problem {
    invalid(field, error.problem)
}

fn invalid(field: &str, problem: &str) -> Problem {
    Problem::account("InvalidSpec", format!("{field}: {problem}"))
}

/// The owner blocks nothing: that would need the right to write its finalizers.
fn owner<B: Bot>(bot: &B) -> OwnerReference {
    OwnerReference {
        api_version: B::api_version(&()).into_owned(),
        kind: B::kind(&()).into_owned(),
        name: bot.name_any(),
        uid: bot.uid().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: None,
    }
}

/// Of several bots for one account the oldest has it.
fn check_claims(
    own: &Claim,
    claims: &[Claim],
    username: &Localpart,
    server_name: &ServerName,
) -> Result<(), Problem> {
    let first = claims.iter().filter(|claim| claim.uid != own.uid).min_by_key(|c| (c.since, c.uid.clone()));
    let Some(first) = first.filter(|first| (first.since, &first.uid) < (own.since, &own.uid)) else {
        return Ok(());
    };
    // Other namespaces belong to other people.
    let by = if first.namespace == own.namespace {
        format!("{} {}", first.kind.kubernetes_kind(), first.name)
    } else {
        "a bot in another namespace".to_owned()
    };
    Err(Problem::account(
        "AccountClaimed",
        format!(
            "account @{username}:{server_name} is already that of {by}, which is older; delete one of the two, \
             or make this one anew with another username"
        ),
    )
    .again_after(std::time::Duration::from_mins(1)))
}

fn credential<B: Bot>(bot: &B, found: &Found) -> Result<Credential, Problem> {
    let Some(admin_api) = bot.common().homeserver.admin_api() else {
        return Err(invalid("spec.homeserver.adminApi", "must have exactly one credential"));
    };
    let url = &bot.common().homeserver.url;
    let (key, make): (SecretKeyRef, fn(SecretString) -> Credential) = match admin_api {
        AdminApi::AccessToken(key) => (key, Credential::AccessToken),
        AdminApi::RegistrationSharedSecret(key) => (key, Credential::SharedSecret),
        AdminApi::Mas(_) => {
            return Err(Problem::account(
                "MasNotSupportedYet",
                "spec.homeserver.adminApi.mas: the Matrix Authentication Service is not supported yet; use \
                 accessToken or registrationSharedSecret",
            ));
        }
    };
    let secret =
        found.credential.as_ref().ok_or_else(|| missing(&key.name, &[&key.key], Problem::account))?;
    let namespace = bot.namespace().unwrap_or_default();
    check_destination(secret, url, &namespace)?;
    if let Some(proxy) = &bot.common().worker.proxy {
        check_proxy(secret, &proxy.url, &namespace)?;
    }
    require(secret, &key.key).map(make)
}

/// Who may create a bot but not read Secrets must not be able to have one sent to a server of
/// theirs: the Secret itself says which URL it is for.
fn check_destination(secret: &Secret, url: &str, namespace: &str) -> Result<(), Problem> {
    let name = secret.metadata.name.as_deref().unwrap_or_default();
    let annotation = annotations::HOMESERVER;
    match secret.metadata.annotations.as_ref().and_then(|a| a.get(annotation)) {
        Some(allowed) if allowed == url => Ok(()),
        Some(_) => Err(Problem::account(
            "CredentialNotForThisHomeserver",
            format!(
                "annotation {annotation} of Secret {name} names another URL than spec.homeserver.url; nothing was \
                 sent. If {url} is right, somebody who may write that Secret must set the annotation to it"
            ),
        )),
        None => Err(Problem::account(
            "CredentialNotForThisHomeserver",
            format!(
                "Secret {name} does not say which homeserver it is for; nothing was sent. Somebody who may write \
                 it must set its annotation: kubectl annotate secret {name} --namespace {namespace} \
                 {annotation}={url}"
            ),
        )),
    }
}

/// A proxy reads what goes to a homeserver without TLS, credentials as well: whoever may only create
/// bots does not choose it.
fn check_proxy(secret: &Secret, url: &str, namespace: &str) -> Result<(), Problem> {
    let annotation = annotations::PROXY;
    if secret.metadata.annotations.as_ref().and_then(|a| a.get(annotation)).is_some_and(|a| a == url) {
        return Ok(());
    }
    let name = secret.metadata.name.as_deref().unwrap_or_default();
    Err(Problem::account(
        "CredentialNotForThisProxy",
        format!(
            "annotation {annotation} of Secret {name} does not name spec.worker.proxy.url; nothing was sent. If {url} \
             is right, somebody who may write that Secret must say so: kubectl annotate --overwrite --namespace \
             {namespace} secret {name} {annotation}={url}"
        ),
    ))
}

/// The problem that a referenced Secret does not exist.
fn missing(name: &str, keys: &[&str], problem: fn(&'static str, String) -> Problem) -> Problem {
    let noun = if keys.len() == 1 { "key" } else { "keys" };
    let keys = keys.join(", ");
    problem("SecretMissing", format!("Secret {name} does not exist; create it with the {noun} {keys}"))
}

/// The certificates under the key of a CA Secret.
fn ca(
    reference: Option<&CaSecretRef>,
    found: Option<&Secret>,
    problem: fn(&'static str, String) -> Problem,
) -> Result<Option<Vec<u8>>, Problem> {
    let Some(reference) = reference else { return Ok(None) };
    let secret = found.ok_or_else(|| missing(&reference.name, &[&reference.key], problem))?;
    let pem = secret.data.as_ref().and_then(|data| data.get(&reference.key)).map(|bytes| bytes.0.clone());
    match pem.filter(|pem| !pem.is_empty()) {
        Some(pem) => Ok(Some(pem)),
        None => Err(problem(
            "SecretKeyMissing",
            format!(
                "Secret {} has no key {}, or it is empty; add the key {}",
                reference.name, reference.key, reference.key
            ),
        )),
    }
}

#[cfg(test)]
mod tests;
