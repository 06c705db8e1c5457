//! The apply step: writes every object that was built, and removes what is no longer built. (client)

use std::{collections::BTreeSet, fmt::Debug};

use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::StatefulSet,
        core::v1::{PersistentVolumeClaim, Service, ServiceAccount},
        networking::v1::NetworkPolicy,
        rbac::v1::{Role, RoleBinding},
    },
};
use kube::{Resource, ResourceExt as _};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    build::Resources,
    context::Ctx,
    error::Error,
    inbox::remove_copy,
    labels::{FIELD_MANAGER, selector_query},
    validate::Validated,
};
use crate::kube_util::{Fight, Kept, keep, orphans::delete_orphans};

/// What is there after the apply.
#[derive(Debug, Clone)]
pub struct Applied {
    /// The workload; `None` if somebody deletes it again and again.
    pub stateful_set: Option<StatefulSet>,
    /// Objects that are not as they were built, since somebody else changes them again and again.
    pub fights: Vec<Fight>,
}

/// Applies all objects. The order: rights before who uses them, the volume before the pod.
pub async fn apply_resources(ctx: &Ctx, resources: Resources) -> Result<Applied, Error> {
    let Resources { service_account, role, role_binding, network_policy, service, volume, stateful_set } =
        resources;
    let mut fights = Vec::new();
    kept(ctx, &service_account, &mut fights).await?;
    kept(ctx, &role, &mut fights).await?;
    kept(ctx, &role_binding, &mut fights).await?;
    kept(ctx, &network_policy, &mut fights).await?;
    kept(ctx, &service, &mut fights).await?;
    kept(ctx, &volume, &mut fights).await?;
    let stateful_set = kept(ctx, &stateful_set, &mut fights).await?;
    Ok(Applied { stateful_set, fights })
}

/// The object as it is now.
async fn kept<K>(ctx: &Ctx, desired: &K, fights: &mut Vec<Fight>) -> Result<Option<K>, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Serialize
        + DeserializeOwned
        + Clone
        + Debug,
{
    Ok(match keep(&ctx.client, FIELD_MANAGER, desired, &ctx.brake).await? {
        Kept::AsWanted(object) => Some(object),
        Kept::Fought { live, fight } => {
            fights.push(fight);
            live
        }
    })
}

/// Removes objects of this bot that an earlier release made under other names.
pub async fn remove_orphans(ctx: &Ctx, bot: &Validated) -> Result<(), Error> {
    let query = selector_query(bot.kind, &bot.name);
    let mut keep = BTreeSet::from([bot.names.worker(), bot.names.worker_data()]);
    keep.extend(ctx.settings.console.is_some().then(|| bot.names.inbox()));
    let (client, namespace, owner) = (&ctx.client, bot.namespace.as_str(), bot.uid.as_str());
    let mut removed = Vec::new();
    removed.extend(delete_orphans::<StatefulSet>(client, namespace, &query, owner, &keep).await?);
    removed.extend(delete_orphans::<Service>(client, namespace, &query, owner, &keep).await?);
    removed.extend(delete_orphans::<NetworkPolicy>(client, namespace, &query, owner, &keep).await?);
    removed.extend(delete_orphans::<RoleBinding>(client, namespace, &query, owner, &keep).await?);
    removed.extend(delete_orphans::<Role>(client, namespace, &query, owner, &keep).await?);
    removed.extend(delete_orphans::<ServiceAccount>(client, namespace, &query, owner, &keep).await?);
    removed.extend(delete_orphans::<PersistentVolumeClaim>(client, namespace, &query, owner, &keep).await?);
    if ctx.settings.console.is_none() {
        remove_copy(ctx, bot).await?;
    }
    if !removed.is_empty() {
        tracing::info!(?removed, workload = bot.names.worker(), "removed objects that are no longer needed");
    }
    Ok(())
}

/// Whether the objects are for this bot and not one that had its name before.
pub fn is_owned(stateful_set: &StatefulSet, uid: &str) -> bool {
    stateful_set.owner_references().iter().any(|owner| owner.uid == uid)
}
