//! `spec.worker`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Affinity, Toleration};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::rules;

/// The pod that works for the bot.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct WorkerSpec {
    /// CPU and memory of the pod. Left out: a small request and a memory limit that fits most
    /// homeservers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<WorkerResources>,
    /// Volume of the pod.
    #[serde(default)]
    pub storage: StorageSpec,
    /// Where the pod runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduling: Option<SchedulingSpec>,
    /// Proxy between the pod and the homeserver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<ProxySpec>,
}

/// CPU and memory of the worker's pod.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct WorkerResources {
    /// What the pod is guaranteed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<ResourceAmounts>,
    /// What the pod may use at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<ResourceAmounts>,
}

/// Amounts of resources, each a quantity in quotes.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct ResourceAmounts {
    /// CPU, for example `"500m"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = rules::quantity("cpu", "500m"))]
    pub cpu: Option<String>,
    /// Memory, for example `"256Mi"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = rules::quantity("memory", "256Mi"))]
    pub memory: Option<String>,
}

/// Volume for the bot's device and its encryption keys. Losing it loses nothing: the keys are
/// recovered with the Secure Backup Phrase.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::immutable_optional("storageClassName"))]
pub struct StorageSpec {
    /// Size. Can be raised where the storage class allows it, never lowered.
    #[serde(default = "storage_size")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = rules::quantity("size", "1Gi"), validation = rules::only_grows("size"))]
    pub size: String,
    /// Storage class. Left out: the cluster's default. Cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
}

impl Default for StorageSpec {
    fn default() -> Self {
        Self { size: storage_size(), storage_class_name: None }
    }
}

fn storage_size() -> String {
    "1Gi".to_owned()
}

/// Where the worker's pod runs.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct SchedulingSpec {
    /// Labels that the node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32, "additionalProperties" = {"type": "string", "maxLength": 63}))]
    pub node_selector: BTreeMap<String, String>,
    /// Taints of nodes that the pod tolerates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub tolerations: Vec<Toleration>,
    /// Affinity, as in any pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// Priority class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
}

/// Proxy between the worker and the homeserver.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ProxySpec {
    /// The proxy. A Secret with a credential for the homeserver must carry the annotation
    /// `ems.element.io/proxy` with exactly this text: a proxy can read what goes through it.
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = rules::http_url("url"))]
    pub url: String,
    /// Hosts, domains or networks that are reached without it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub no_proxy: Vec<String>,
}
