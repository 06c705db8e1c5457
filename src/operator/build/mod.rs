//! The build step: every object of a bot, made of what was validated. (no client)

pub(super) mod inbox;
mod network;
mod pod;
mod rbac;
mod stateful_set;
mod storage;
mod volumes;

use k8s_openapi::{
    api::{
        apps::v1::StatefulSet,
        core::v1::{PersistentVolumeClaim, Secret, Service, ServiceAccount},
        networking::v1::NetworkPolicy,
        rbac::v1::{Role, RoleBinding},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use secrecy::SecretString;

use super::{
    context::Settings,
    generated::keyed_hash,
    labels,
    validate::{Validated, Workload},
};

/// Port of `/livez`, `/readyz` and `/metrics`.
pub const HTTP_PORT: i32 = 8080;

/// Every object of one bot that is applied. Whoever applies it destructures it completely.
#[derive(Debug, Clone)]
pub struct Resources {
    /// Whom the worker is in the cluster.
    pub service_account: ServiceAccount,
    /// What it may do.
    pub role: Role,
    /// That it may do it.
    pub role_binding: RoleBinding,
    /// Whom it may talk to.
    pub network_policy: NetworkPolicy,
    /// Its name in the cluster.
    pub service: Service,
    /// Its volume.
    pub volume: PersistentVolumeClaim,
    /// Its pod.
    pub stateful_set: StatefulSet,
}

/// Builds all objects. `secrets_hash` stands for the content of every Secret that the pod mounts.
pub fn build(bot: &Validated, workload: &Workload, settings: &Settings, secrets_hash: &str) -> Resources {
    Resources {
        service_account: rbac::service_account(bot),
        role: rbac::role(bot),
        role_binding: rbac::role_binding(bot),
        network_policy: network::network_policy(bot, workload, settings),
        service: network::service(bot),
        volume: storage::volume(bot, workload),
        stateful_set: stateful_set::stateful_set(bot, workload, settings, secrets_hash),
    }
}

/// A hash over the content of Secrets, keyed so that it says nothing about them.
pub fn secrets_hash(key: &SecretString, secrets: &[Option<&Secret>]) -> String {
    let mut parts: Vec<&[u8]> = Vec::new();
    for secret in secrets.iter().flatten() {
        parts.push(secret.metadata.name.as_deref().unwrap_or_default().as_bytes());
        for (key, value) in secret.data.iter().flatten() {
            parts.push(key.as_bytes());
            parts.push(&value.0);
        }
    }
    keyed_hash(key, &parts)
}

/// Metadata of a child that goes with the bot.
fn metadata(bot: &Validated, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(bot.namespace.clone()),
        labels: Some(labels::labels(bot.kind, &bot.name, bot.names.base())),
        owner_references: Some(vec![bot.owner.clone()]),
        ..ObjectMeta::default()
    }
}

#[cfg(test)]
mod tests;
