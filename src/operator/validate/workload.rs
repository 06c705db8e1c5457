//! What the worker's workload is made of.

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Secret};
use kube::ResourceExt as _;
use secrecy::ExposeSecret as _;
use url::Url;

use super::{ca, missing};
use crate::{
    crd::{
        Bot, BucketSpec, annotations,
        common::{CaSecretRef, RoleRef, WorkerSpec},
    },
    kube_util::quantity,
    operator::{dereference::Found, error::Problem, generated},
};

/// A database role that was given because the owner may not create roles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenRole {
    /// Secret with `username` and `password`.
    pub secret: String,
}

/// The bucket for attachments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenBucket {
    /// As the custom resource has it.
    pub spec: BucketSpec,
    /// Port of its endpoint, for the network policy.
    pub port: u16,
}

/// What the worker's workload is made of; every Secret in it exists and has its keys.
#[derive(Debug, Clone)]
pub struct Workload {
    /// Secret of the database's owner.
    pub database_secret: String,
    /// Port of the database, for the network policy.
    pub database_port: u16,
    /// CA of the database.
    pub database_ca: Option<CaSecretRef>,
    /// The certificates in it, PEM.
    pub database_ca_pem: Option<Vec<u8>>,
    /// Schema of the trail.
    pub schema: String,
    /// Given role that appends.
    pub writer: Option<GivenRole>,
    /// Given role that reads.
    pub reader: Option<GivenRole>,
    /// Given role that erases.
    pub eraser: Option<GivenRole>,
    /// Port of the homeserver, for the network policy.
    pub homeserver_port: u16,
    /// Port of the proxy, for the network policy.
    pub proxy_port: Option<u16>,
    /// The bucket for attachments, which its Secret names.
    pub bucket: Option<GivenBucket>,
    /// `spec.worker`.
    pub spec: WorkerSpec,
    /// Size of the volume: what is wanted, or what there is if that is more.
    pub storage: String,
}

pub(super) fn workload<B: Bot>(bot: &B, homeserver: &Url, found: &Found) -> Result<Workload, Problem> {
    let common = bot.common();
    let database = common.database;
    let name = &database.secret_ref.name;
    let keys = ["host", "port", "dbname", "username", "password"];
    let secret = found.database.as_ref().ok_or_else(|| missing(name, &keys, Problem::worker))?;
    for key in keys {
        require(secret, name, key)?;
    }
    let port = generated::text(secret, "port");
    let database_port = port.and_then(|port| port.expose_secret().parse().ok()).ok_or_else(|| {
        Problem::worker("SecretKeyInvalid", format!("key port of Secret {name} is not a port number"))
    })?;
    let database_ca_pem = ca(database.ca_secret_ref.as_ref(), found.database_ca.as_ref(), Problem::worker)?;
    let proxy_port = match &common.worker.proxy {
        None => None,
        Some(proxy) => Url::parse(&proxy.url).ok().and_then(|url| url.port_or_known_default()),
    };
    Ok(Workload {
        database_secret: name.clone(),
        database_port,
        database_ca: database.ca_secret_ref.clone(),
        database_ca_pem,
        schema: bot.database_schema().to_owned(),
        writer: role(database.writer.as_ref(), found.writer.as_ref())?,
        reader: role(database.reader.as_ref(), found.reader.as_ref())?,
        eraser: role(database.eraser.as_ref(), found.eraser.as_ref())?,
        homeserver_port: homeserver.port_or_known_default().unwrap_or(443),
        proxy_port,
        bucket: bucket(bot, found)?,
        spec: common.worker.clone(),
        storage: storage(&common.worker.storage.size, found.volume.as_ref()),
    })
}

fn bucket<B: Bot>(bot: &B, found: &Found) -> Result<Option<GivenBucket>, Problem> {
    let Some(spec) = bot.media().and_then(|media| media.bucket.as_ref()) else { return Ok(None) };
    let name = &spec.secret_ref.name;
    let keys = ["access-key-id", "secret-access-key"];
    let secret = found.bucket.as_ref().ok_or_else(|| missing(name, &keys, Problem::worker))?;
    for key in keys {
        require(secret, name, key)?;
    }
    check_place(secret, spec, &bot.namespace().unwrap_or_default())?;
    ca(spec.ca_secret_ref.as_ref(), found.bucket_ca.as_ref(), Problem::worker)?;
    let url = Url::parse(&spec.endpoint)
        .map_err(|_| Problem::worker("InvalidSpec", "spec.media.bucket.endpoint: is not a URL".to_owned()))?;
    Ok(Some(GivenBucket { spec: spec.clone(), port: url.port_or_known_default().unwrap_or(443) }))
}

/// Whoever has the bucket has the attachments: who may create a bot but read no Secret does not choose
/// where they go, neither the service nor, on one that several people use, the bucket.
fn check_place(secret: &Secret, spec: &BucketSpec, namespace: &str) -> Result<(), Problem> {
    let annotation = annotations::BUCKET;
    let place = spec.place();
    if secret.metadata.annotations.as_ref().and_then(|a| a.get(annotation)) == Some(&place) {
        return Ok(());
    }
    let name = &spec.secret_ref.name;
    Err(Problem::worker(
        "SecretNotForThisBucket",
        format!(
            "annotation {annotation} of Secret {name} does not name the endpoint, name and prefix of \
             spec.media.bucket; nothing was sent. If {place} is right, somebody who may write that Secret must say \
             so: kubectl annotate --overwrite --namespace {namespace} secret {name} {annotation}={place}"
        ),
    ))
}

/// A volume that somebody has enlarged by hand must not be asked to shrink, which is refused.
fn storage(wanted: &str, volume: Option<&PersistentVolumeClaim>) -> String {
    let live = volume
        .and_then(|volume| volume.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?.get("storage"))
        .map(|quantity| quantity.0.as_str());
    match live {
        Some(live) if quantity(live) > quantity(wanted) => live.to_owned(),
        _ => wanted.to_owned(),
    }
}

fn require(secret: &Secret, name: &str, key: &str) -> Result<(), Problem> {
    match generated::text(secret, key) {
        Some(_) => Ok(()),
        None => Err(Problem::worker(
            "SecretKeyMissing",
            format!("Secret {name} has no key {key}, or it is empty; add the key {key}"),
        )),
    }
}

fn role(reference: Option<&RoleRef>, found: Option<&Secret>) -> Result<Option<GivenRole>, Problem> {
    let Some(reference) = reference else { return Ok(None) };
    let name = &reference.secret_ref.name;
    let secret = found.ok_or_else(|| missing(name, &["username", "password"], Problem::worker))?;
    require(secret, name, "username")?;
    require(secret, name, "password")?;
    Ok(Some(GivenRole { secret: name.clone() }))
}
