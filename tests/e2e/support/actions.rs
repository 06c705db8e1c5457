//! What people and accidents do to a tenant's objects, and what is to be seen of them.

use std::{collections::BTreeMap, fs, path::Path, process::Command, time::Duration};

use k8s_openapi::api::core::v1::{Event, PersistentVolumeClaim, Pod};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{Tenant, eventually, tenant::system_namespace};

/// Status, reason and message.
pub type Condition = (String, String, String);

impl Tenant {
    /// A merge patch of a bot, as `kubectl edit` makes one.
    pub async fn patch_bot(&self, kind: &str, name: &str, patch: Value) {
        let done = self.bots(kind).patch(name, &PatchParams::default(), &Patch::Merge(patch.clone())).await;
        done.unwrap_or_else(|error| panic!("patch {kind} {name} with {patch}: {error}"));
    }

    /// Sets an annotation of a bot, or removes it.
    pub async fn annotate(&self, kind: &str, name: &str, key: &str, value: Option<&str>) {
        self.patch_bot(kind, name, json!({"metadata": {"annotations": {key: value}}})).await;
    }

    /// All conditions by type.
    pub async fn conditions(&self, kind: &str, name: &str) -> BTreeMap<String, Condition> {
        let status = self.status(kind, name).await;
        let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
        let all = status["conditions"].as_array().cloned().unwrap_or_default();
        all.iter()
            .map(|one| (text(one, "type"), (text(one, "status"), text(one, "reason"), text(one, "message"))))
            .collect()
    }

    /// Waits until a condition says this status and its message contains all these words; returns
    /// reason and message.
    pub async fn wait_says(
        &self,
        kind: &str,
        name: &str,
        condition: &str,
        status: &str,
        words: &[&str],
    ) -> (String, String) {
        let deadline = std::time::Instant::now() + Duration::from_secs(150);
        loop {
            let seen = self.condition(kind, name, condition).await;
            if let Some((found, reason, message)) = &seen {
                let lower = message.to_lowercase();
                if found == status && words.iter().all(|word| lower.contains(&word.to_lowercase())) {
                    assert!(!reason.is_empty() && reason.chars().all(char::is_alphanumeric), "{reason}");
                    return (reason.clone(), message.clone());
                }
            }
            if std::time::Instant::now() > deadline {
                self.dump().await;
                panic!(
                    "{kind} {}/{name}: {condition} is {seen:?}, not {status} with {words:?}",
                    self.namespace
                );
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    /// Pods of the bot whose children's names begin with `base`.
    pub async fn worker(&self, base: &str) -> Option<Pod> {
        self.api::<Pod>().get_opt(&format!("{base}-worker-0")).await.unwrap()
    }

    /// Ends a pod of the tenant at once, as a node that dies does.
    pub async fn kill_worker(&self, base: &str) {
        kill(&self.api::<Pod>(), &format!("{base}-worker-0")).await;
    }

    /// Waits until there is another pod than the one with this UID, and it is ready.
    pub async fn wait_new_worker(&self, base: &str, old_uid: &str) {
        eventually(&format!("new pod of {base}"), Duration::from_secs(150), || async {
            match self.worker(base).await {
                Some(pod) if uid(&pod) != old_uid && is_ready(&pod) => Ok(()),
                Some(pod) => Err(format!("{:?}", pod.status.and_then(|status| status.conditions))),
                None => Err("no pod".to_owned()),
            }
        })
        .await;
    }

    /// Deletes the worker's volume together with its pod, as the loss of a disk does.
    pub async fn lose_volume(&self, base: &str) {
        let claims = self.api::<PersistentVolumeClaim>();
        let name = format!("{base}-worker-data");
        let old = claims.get(&name).await.unwrap().metadata.uid;
        claims.delete(&name, &DeleteParams::default()).await.unwrap();
        self.kill_worker(base).await;
        eventually("another volume", Duration::from_secs(90), || async {
            match claims.get_opt(&name).await.unwrap() {
                Some(claim) if claim.metadata.uid != old => Ok(()),
                Some(_) => Err("the old one is still there".to_owned()),
                None => Err("none".to_owned()),
            }
        })
        .await;
    }

    /// Reasons and messages of the Events about an object.
    pub async fn events(&self, name: &str) -> Vec<(String, String)> {
        let wanted = ListParams::default().fields(&format!("involvedObject.name={name}"));
        let events = self.api::<Event>().list(&wanted).await.unwrap();
        events
            .into_iter()
            .map(|event| (event.reason.unwrap_or_default(), event.message.unwrap_or_default()))
            .collect()
    }
}

/// Ends a pod without warning.
pub async fn kill(pods: &Api<Pod>, name: &str) {
    let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    let done = pods.delete(name, &now).await;
    done.unwrap_or_else(|error| panic!("delete pod {name}: {error}"));
}

/// Ends the process of a pod as `kill -9` does. On the local cluster it is a process of this machine, in a control
/// group that has the name of the pod.
pub fn kill_process(pod: &Pod) {
    let read = |folder: &Path, name: &str| fs::read_to_string(folder.join(name)).unwrap_or_default();
    let is_its = |folder: &Path| {
        read(folder, "cgroup").contains(&format!("pod{}", uid(pod)))
            && read(folder, "comm").trim() == "ems-bots"
    };
    let all = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    let found: Vec<_> = all.filter(|folder| is_its(folder)).collect();
    assert_eq!(found.len(), 1, "processes of {:?}: {found:?}", pod.metadata.name);
    let id = found[0].file_name().unwrap();
    assert!(Command::new("kill").arg("-KILL").arg(id).status().unwrap().success());
}

/// The pods of operator and console.
pub fn operator_pods(client: &kube::Client) -> Api<Pod> {
    Api::namespaced(client.clone(), &system_namespace())
}

/// The operator's pods.
pub async fn operators(client: &kube::Client) -> Vec<Pod> {
    let wanted = ListParams::default().labels("app.kubernetes.io/component=operator");
    operator_pods(client).list(&wanted).await.unwrap().items
}

/// Ends every pod of the operator without warning; returns at once.
pub async fn kill_operator(client: &kube::Client) {
    for pod in operators(client).await {
        kill(&operator_pods(client), &pod.metadata.name.unwrap()).await;
    }
}

/// Waits until both replicas of the operator are ready.
pub async fn wait_operator(client: &kube::Client) {
    eventually("the operator's two pods", Duration::from_mins(2), || async {
        let ready = operators(client).await.iter().filter(|pod| is_ready(pod)).count();
        if ready >= 2 { Ok(()) } else { Err(format!("{ready} ready")) }
    })
    .await;
}

pub fn uid(pod: &Pod) -> String {
    pod.metadata.uid.clone().unwrap_or_default()
}

pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    pod.metadata.deletion_timestamp.is_none()
        && conditions.iter().any(|one| one.type_ == "Ready" && one.status == "True")
}
