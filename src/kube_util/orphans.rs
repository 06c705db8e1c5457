//! Removal of children that are no longer wanted, and of single objects.

use std::{collections::BTreeSet, fmt::Debug};

use k8s_openapi::NamespaceResourceScope;
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{DeleteParams, ListParams, Preconditions},
};
use serde::de::DeserializeOwned;

use super::error::{Error, Result, describe, describe_name};

/// Deletes the objects that carry the label selector, have the owner with this UID and are not
/// named in `keep`. Labels alone prove nothing: anybody may copy them. Returns the names.
pub async fn delete_orphans<K>(
    client: &Client,
    namespace: &str,
    selector: &str,
    owner_uid: &str,
    keep: &BTreeSet<String>,
) -> Result<Vec<String>>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned + Clone + Debug,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let found = api
        .list(&ListParams::default().labels(selector))
        .await
        .map_err(|e| Error::new("list", describe_name::<K>(Some(namespace), selector), e))?;
    let mut deleted = Vec::new();
    for object in found {
        let is_owned = object.owner_references().iter().any(|owner| owner.uid == owner_uid);
        if is_owned && !keep.contains(&object.name_any()) && delete(client, &object).await? {
            deleted.push(object.name_any());
        }
    }
    Ok(deleted)
}

/// Deletes exactly this object (not one that has taken its name since); gone already is success.
/// Returns whether there was something to delete.
pub async fn delete<K>(client: &Client, object: &K) -> Result<bool>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned + Clone + Debug,
{
    let api: Api<K> = Api::namespaced(client.clone(), &object.namespace().unwrap_or_default());
    let params = DeleteParams {
        preconditions: object.uid().map(|uid| Preconditions { uid: Some(uid), resource_version: None }),
        ..DeleteParams::background()
    };
    match api.delete(&object.name_any(), &params).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        Err(error) => Err(Error::new("delete", describe(object), error)),
    }
}
