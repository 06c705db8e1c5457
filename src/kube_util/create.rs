//! Plain creation of objects that are made once and never changed: generated Secrets.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use kube::{Api, Client, Resource, ResourceExt as _, api::PostParams};
use serde::{Serialize, de::DeserializeOwned};

use super::error::{Error, Result, describe};

/// How an object came to be there.
#[derive(Debug, Clone, PartialEq)]
pub enum Created<K> {
    /// By this call.
    New(K),
    /// It was there; it may differ from what was wanted, and is not changed.
    Existing(K),
}

/// Creates the object; if one of that name exists, reads that one instead.
pub async fn create_or_read<K>(client: &Client, manager: &str, object: &K) -> Result<Created<K>>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Serialize
        + DeserializeOwned
        + Clone
        + Debug,
{
    let api: Api<K> = Api::namespaced(client.clone(), &object.namespace().unwrap_or_default());
    let params = PostParams { field_manager: Some(manager.to_owned()), ..PostParams::default() };
    match api.create(&params, object).await {
        Ok(created) => Ok(Created::New(created)),
        Err(kube::Error::Api(status)) if status.code == 409 => api
            .get(&object.name_any())
            .await
            .map(Created::Existing)
            .map_err(|e| Error::new("get", describe(object), e)),
        Err(error) => Err(Error::new("create", describe(object), error)),
    }
}
