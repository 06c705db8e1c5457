//! Server-side apply: the only place that patches.
//!
//! A caller always states everything it wants of an object under one field manager. The live
//! object is compared first, because an apply that changes nothing costs as much as a write.

use std::{
    fmt::Debug,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    time::Duration,
};

use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{Patch, PatchParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    brake::Brake,
    error::{Error, Result, describe, describe_name},
    owned::{interferer, owns_more},
    subset::contains,
};

/// What an apply did.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome<K> {
    /// The object did not exist.
    Created(K),
    /// The object differed.
    Changed(K),
    /// Nothing was written.
    Unchanged(K),
}

impl<K> Outcome<K> {
    /// The object as it is now.
    pub fn into_inner(self) -> K {
        match self {
            Self::Created(object) | Self::Changed(object) | Self::Unchanged(object) => object,
        }
    }

    /// Whether something was written.
    pub fn has_written(&self) -> bool {
        !matches!(self, Self::Unchanged(_))
    }
}

/// What became of an object that is to stay as it is wanted.
#[derive(Debug, Clone, PartialEq)]
pub enum Kept<K> {
    /// It is as it is wanted.
    AsWanted(K),
    /// It is not, and somebody sees to it that it is not.
    Fought {
        /// The object as it is, if it is there.
        live: Option<K>,
        /// What to say of it.
        fight: Fight,
    },
}

/// An object that somebody else changes as often as it is put right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fight {
    /// `Kind namespace/name`.
    pub object: String,
    /// The field manager that gave a field another value, or wrote last; `None` if the object is gone, or names
    /// nobody else.
    pub by: Option<String>,
    /// It is left as it is for so long.
    pub wait: Duration,
}

/// Applies a namespaced object under `manager`, if the live one differs.
pub async fn apply<K>(client: &Client, manager: &str, desired: &K) -> Result<Outcome<K>>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Serialize
        + DeserializeOwned
        + Clone
        + Debug,
{
    let (api, live, wanted) = read(client, desired).await?;
    let name = desired.name_any();
    let Some(live) = live else {
        let applied = patch(&api, &name, manager, None, &wanted).await?;
        return Ok(Outcome::Created(applied));
    };
    if is_settled(&live, manager, None, &wanted)? {
        return Ok(Outcome::Unchanged(live));
    }
    Ok(Outcome::Changed(patch(&api, &name, manager, None, &wanted).await?))
}

/// Like [`apply`], but ever more slowly where somebody else changes or deletes the object again and again.
pub async fn keep<K>(client: &Client, manager: &str, desired: &K, brake: &Brake) -> Result<Kept<K>>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Serialize
        + DeserializeOwned
        + Clone
        + Debug,
{
    let (api, live, wanted) = read(client, desired).await?;
    if let Some(live) = &live
        && is_settled(live, manager, None, &wanted)?
    {
        return Ok(Kept::AsWanted(live.clone()));
    }
    let object = describe(desired);
    let mut hash = DefaultHasher::new();
    wanted.hash(&mut hash);
    let hash = hash.finish();
    let Some(wait) = brake.wait(&object, hash, Instant::now()) else {
        let applied = patch(&api, &desired.name_any(), manager, None, &wanted).await?;
        brake.wrote(&object, hash, Instant::now());
        return Ok(Kept::AsWanted(applied));
    };
    let by = match &live {
        Some(live) => interferer(live.managed_fields(), manager, &to_json("read", &object, live)?, &wanted),
        None => None,
    };
    Ok(Kept::Fought { live, fight: Fight { object, by, wait } })
}

/// The object as it is, if it is there, and as it is wanted.
async fn read<K>(client: &Client, desired: &K) -> Result<(Api<K>, Option<K>, Value)>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Serialize
        + DeserializeOwned
        + Clone
        + Debug,
{
    let api: Api<K> = Api::namespaced(client.clone(), &desired.namespace().unwrap_or_default());
    let found = api.get_opt(&desired.name_any()).await;
    let live = found.map_err(|e| Error::new("get", describe(desired), e))?;
    let wanted = to_json("apply", &describe(desired), desired)?;
    Ok((api, live, wanted))
}

/// Applies a part of an object without namespace that somebody else made, if the live one differs. Returns whether
/// it wrote; an object that is not there is an error.
pub async fn apply_part<K>(client: &Client, manager: &str, name: &str, part: &Value) -> Result<bool>
where
    K: Resource<DynamicType = (), Scope = ClusterResourceScope>
        + Serialize
        + DeserializeOwned
        + Clone
        + Debug,
{
    let api: Api<K> = Api::all(client.clone());
    let live = api.get(name).await.map_err(|e| Error::new("get", describe_name::<K>(None, name), e))?;
    if contains(&to_json("read", name, &live)?, part) {
        return Ok(false);
    }
    let mut wanted = part.clone();
    wanted["apiVersion"] = K::api_version(&()).into();
    wanted["kind"] = K::kind(&()).into();
    // The UID is stated too: an apply for an object that is gone must not create it.
    wanted["metadata"] = json!({"name": name, "uid": live.uid()});
    patch::<K>(&api, name, manager, None, &wanted).await?;
    Ok(true)
}

/// Applies the whole status of this manager, if that of `live` differs. Returns whether it wrote.
pub async fn apply_status<K, S>(client: &Client, manager: &str, live: &K, status: &S) -> Result<bool>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Serialize
        + DeserializeOwned
        + Clone
        + Debug,
    S: Serialize,
{
    let status = without_nulls(to_json("apply the status of", &describe(live), status)?);
    let wanted = fragment::<K>(live, json!({}), Some(status));
    if is_settled(live, manager, Some("status"), &wanted)? {
        return Ok(false);
    }
    let api: Api<K> = Api::namespaced(client.clone(), &live.namespace().unwrap_or_default());
    patch::<K>(&api, &live.name_any(), manager, Some("status"), &wanted).await?;
    Ok(true)
}

/// Sets a finalizer of an object that exists. Returns whether it wrote.
///
/// The UID is stated too: an apply for an object that is gone must not create it.
pub async fn add_finalizer<K>(client: &Client, manager: &str, live: &K, finalizer: &str) -> Result<bool>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned + Clone + Debug,
{
    if live.finalizers().iter().any(|f| f == finalizer) {
        return Ok(false);
    }
    let wanted = fragment::<K>(live, json!({"finalizers": [finalizer]}), None);
    let api: Api<K> = Api::namespaced(client.clone(), &live.namespace().unwrap_or_default());
    patch::<K>(&api, &live.name_any(), manager, None, &wanted).await?;
    Ok(true)
}

/// Removes a finalizer; an object that is gone is success. Returns whether it wrote.
///
/// The one patch that is no apply: an apply gives up only its own share of a finalizer, and after
/// a restore from a backup or an edit by hand somebody else may hold one too, for ever.
pub async fn remove_finalizer<K>(client: &Client, live: &K, finalizer: &str) -> Result<bool>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned + Clone + Debug,
{
    let Some(index) = live.finalizers().iter().position(|f| f == finalizer) else { return Ok(false) };
    let pointer = format!("/metadata/finalizers/{index}");
    let steps = json!([
        {"op": "test", "path": "/metadata/uid", "value": live.uid()},
        {"op": "test", "path": pointer, "value": finalizer},
        {"op": "remove", "path": pointer},
    ]);
    let failed = |e| Error::new("remove the finalizer of", describe(live), e);
    let patch =
        Patch::<()>::Json(serde_json::from_value(steps).map_err(|e| failed(kube::Error::SerdeError(e)))?);
    let api: Api<K> = Api::namespaced(client.clone(), &live.namespace().unwrap_or_default());
    match api.patch_metadata(&live.name_any(), &PatchParams::default(), &patch).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        Err(error) => Err(failed(error)),
    }
}

/// An object with only its identity and the parts that are applied.
fn fragment<K: Resource<DynamicType = ()>>(live: &K, mut metadata: Value, status: Option<Value>) -> Value {
    metadata["name"] = live.name_any().into();
    metadata["namespace"] = live.namespace().into();
    metadata["uid"] = live.uid().into();
    let mut object = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": metadata,
    });
    if let Some(status) = status {
        object["status"] = status;
    }
    object
}

fn is_settled<K: Resource<DynamicType = ()> + Serialize>(
    live: &K,
    manager: &str,
    subresource: Option<&str>,
    wanted: &Value,
) -> Result<bool> {
    let live_json = to_json("read", &describe(live), live)?;
    Ok(contains(&live_json, wanted) && !owns_more(live.managed_fields(), manager, subresource, wanted))
}

async fn patch<K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug>(
    api: &Api<K>,
    name: &str,
    manager: &str,
    subresource: Option<&str>,
    wanted: &Value,
) -> Result<K> {
    let params = PatchParams::apply(manager).force();
    let patch = Patch::Apply(wanted);
    let namespace = wanted["metadata"]["namespace"].as_str();
    match subresource {
        Some(_) => api.patch_status(name, &params, &patch).await,
        None => api.patch(name, &params, &patch).await,
    }
    .map_err(|e| {
        let verb = if subresource.is_some() { "apply the status of" } else { "apply" };
        Error::new(verb, describe_name::<K>(namespace, name), e)
    })
}

fn to_json<T: Serialize>(verb: &'static str, object: &str, value: &T) -> Result<Value> {
    serde_json::to_value(value).map_err(|e| Error::new(verb, object, kube::Error::SerdeError(e)))
}

/// In a status that is applied, a field that is not there is not owned; `null` would be.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k, without_nulls(v))).collect(),
        ),
        Value::Array(list) => Value::Array(list.into_iter().map(without_nulls).collect()),
        other => other,
    }
}
