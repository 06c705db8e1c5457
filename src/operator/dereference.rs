//! The dereference step: everything that is read of the cluster for one bot. (client)

use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret},
};
use kube::{Api, Client, Resource, core::NamespaceResourceScope};
use serde::de::DeserializeOwned;

use super::names::Names;
use crate::{
    crd::{
        Bot,
        common::{AdminApi, CaSecretRef},
    },
    kube_util::{self, error::describe_name},
};

/// What was found; `None` where nothing of that name exists or nothing is referenced.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// Secret with the homeserver's credential.
    pub credential: Option<Secret>,
    /// Secret with the homeserver's CA.
    pub homeserver_ca: Option<Secret>,
    /// Secret with the database owner's access.
    pub database: Option<Secret>,
    /// Secret with the database's CA.
    pub database_ca: Option<Secret>,
    /// Secret with the given writer role.
    pub writer: Option<Secret>,
    /// Secret with the given reader role.
    pub reader: Option<Secret>,
    /// Secret with the given eraser role.
    pub eraser: Option<Secret>,
    /// Secret with the keys of the bucket for attachments.
    pub bucket: Option<Secret>,
    /// Secret with the CA of that bucket.
    pub bucket_ca: Option<Secret>,
    /// Generated: the bot's account.
    pub account: Option<Secret>,
    /// Generated: the Secure Backup Phrase.
    pub phrase: Option<Secret>,
    /// Generated: passwords of the database roles.
    pub roles: Option<Secret>,
    /// Generated: the worker's admin account.
    pub admin: Option<Secret>,
    /// Generated: that account's session.
    pub admin_token: Option<Secret>,
    /// The worker's workload.
    pub stateful_set: Option<StatefulSet>,
    /// The worker's pod.
    pub pod: Option<Pod>,
    /// The worker's volume.
    pub volume: Option<PersistentVolumeClaim>,
    /// Where the trail stood.
    pub trail: Option<ConfigMap>,
}

/// What the worker's pod is made of and what it left.
#[derive(Debug, Clone, Default)]
pub struct FoundWorkload {
    /// The workload.
    pub stateful_set: Option<StatefulSet>,
    /// Its pod.
    pub pod: Option<Pod>,
    /// Its volume.
    pub volume: Option<PersistentVolumeClaim>,
    /// Where the trail stood.
    pub trail: Option<ConfigMap>,
}

/// Reads everything; a missing right is an error, a missing object is not.
pub async fn dereference<B: Bot>(client: &Client, bot: &B, names: &Names) -> kube_util::Result<Found> {
    let namespace = bot.meta().namespace.clone().unwrap_or_default();
    let common = bot.common();
    let credential = match common.homeserver.admin_api() {
        Some(AdminApi::AccessToken(key) | AdminApi::RegistrationSharedSecret(key)) => Some(key.name),
        Some(AdminApi::Mas(_)) | None => None,
    };
    let ca = |reference: &Option<CaSecretRef>| reference.as_ref().map(|r| r.name.clone());
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &namespace);
    let database = common.database;
    let role = |role: &Option<crate::crd::common::RoleRef>| role.as_ref().map(|r| r.secret_ref.name.clone());
    let given = futures::future::try_join4(
        get(&secrets, credential),
        get(&secrets, ca(&common.homeserver.ca_secret_ref)),
        get(&secrets, Some(database.secret_ref.name.clone())),
        get(&secrets, ca(&database.ca_secret_ref)),
    );
    let roles = futures::future::try_join3(
        get(&secrets, role(&database.writer)),
        get(&secrets, role(&database.reader)),
        get(&secrets, role(&database.eraser)),
    );
    let bucket = bot.media().and_then(|media| media.bucket.as_ref());
    let buckets = futures::future::try_join(
        get(&secrets, bucket.map(|bucket| bucket.secret_ref.name.clone())),
        get(&secrets, bucket.and_then(|bucket| ca(&bucket.ca_secret_ref))),
    );
    let generated = futures::future::try_join5(
        get(&secrets, Some(names.account())),
        get(&secrets, Some(names.backup_phrase())),
        get(&secrets, Some(names.database_roles())),
        get(&secrets, Some(names.admin())),
        get(&secrets, Some(names.admin_token())),
    );
    let workload = workload(client, &namespace, names);
    let (given, given_roles, buckets, generated, workload) =
        Box::pin(futures::future::try_join5(given, roles, buckets, generated, workload)).await?;
    let (credential, homeserver_ca, database, database_ca) = given;
    let (writer, reader, eraser) = given_roles;
    let (bucket, bucket_ca) = buckets;
    let (account, phrase, roles, admin, admin_token) = generated;
    let FoundWorkload { stateful_set, pod, volume, trail } = workload;
    Ok(Found {
        credential,
        homeserver_ca,
        database,
        database_ca,
        writer,
        reader,
        eraser,
        bucket,
        bucket_ca,
        account,
        phrase,
        roles,
        admin,
        admin_token,
        stateful_set,
        pod,
        volume,
        trail,
    })
}

/// Reads the worker's workload, its pod and volume, and what is kept of the trail.
pub async fn workload(client: &Client, namespace: &str, names: &Names) -> kube_util::Result<FoundWorkload> {
    let stateful_sets = Api::namespaced(client.clone(), namespace);
    let pods = Api::namespaced(client.clone(), namespace);
    let volumes = Api::namespaced(client.clone(), namespace);
    let config_maps = Api::namespaced(client.clone(), namespace);
    let (stateful_set, pod, volume, trail) = futures::future::try_join4(
        get(&stateful_sets, Some(names.worker())),
        get(&pods, Some(names.worker_pod())),
        get(&volumes, Some(names.worker_data())),
        get(&config_maps, Some(names.trail())),
    )
    .await?;
    Ok(FoundWorkload { stateful_set, pod, volume, trail })
}

/// Reads one object, if there is a name and an object.
pub async fn get<K>(api: &Api<K>, name: Option<String>) -> kube_util::Result<Option<K>>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + DeserializeOwned
        + Clone
        + std::fmt::Debug,
{
    let Some(name) = name else { return Ok(None) };
    api.get_opt(&name)
        .await
        .map_err(|e| kube_util::Error::new("get", describe_name::<K>(api.namespace(), &name), e))
}

/// Names of the Secrets that a bot depends on: a change of one of them concerns it.
pub fn secret_names<B: Bot>(bot: &B) -> Vec<String> {
    let common = bot.common();
    let names = Names::new(
        B::KIND,
        bot.meta().name.as_deref().unwrap_or_default(),
        bot.meta().uid.as_deref().unwrap_or_default(),
    );
    let mut secrets = vec![
        common.database.secret_ref.name.clone(),
        names.account(),
        names.backup_phrase(),
        names.database_roles(),
        names.inbox(),
        names.admin(),
        names.admin_token(),
    ];
    if let Some(AdminApi::AccessToken(key) | AdminApi::RegistrationSharedSecret(key)) =
        common.homeserver.admin_api()
    {
        secrets.push(key.name);
    }
    let cas = [&common.homeserver.ca_secret_ref, &common.database.ca_secret_ref];
    secrets.extend(cas.into_iter().flatten().map(|ca| ca.name.clone()));
    let roles = [&common.database.writer, &common.database.reader, &common.database.eraser];
    secrets.extend(roles.into_iter().flatten().map(|role| role.secret_ref.name.clone()));
    if let Some(bucket) = bot.media().and_then(|media| media.bucket.as_ref()) {
        secrets.push(bucket.secret_ref.name.clone());
        secrets.extend(bucket.ca_secret_ref.as_ref().map(|ca| ca.name.clone()));
    }
    secrets
}
