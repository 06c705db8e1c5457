//! Looks for the value of every Secret of a tenant in everything that people without a right to
//! read Secrets can see.

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::{
    Api,
    api::{ListParams, LogParams},
};

use super::{Tenant, services::dev, tenant::system_namespace};

/// Keys whose values are no secrets: names and addresses.
const NAMES: [&str; 13] = [
    "username",
    "user",
    "user-id",
    "host",
    "port",
    "dbname",
    "device-prefix",
    "ca.crt",
    "schema",
    "writer-username",
    "reader-username",
    "inbox-username",
    "tls.crt",
];
/// A shorter value would be found anywhere by chance.
const SHORTEST: usize = 8;

/// Fails if a secret value of this namespace, or one of `more`, shows anywhere: in custom resources,
/// other objects, Events, logs, metrics, or the records of the process list of the node.
pub async fn assert_no_secret_shows(tenant: &Tenant, more: &[&str]) {
    let secrets = values(tenant, more).await;
    assert!(secrets.len() > more.len(), "the namespace has Secrets to look for");
    let mut places: Vec<(String, String)> = Vec::new();
    let kinds = "adminbots,auditbots,events,pods,statefulsets,configmaps,services,serviceaccounts,roles,\
                 rolebindings,persistentvolumeclaims,networkpolicies";
    places.push(("objects".to_owned(), tenant.kubectl(&["get", kinds, "-o", "yaml"]).1));
    places.push(("process list".to_owned(), process_list()));
    for namespace in [&tenant.namespace, &system_namespace()] {
        let pods: Api<Pod> = Api::namespaced(tenant.client.clone(), namespace);
        for pod in pods.list(&ListParams::default()).await.unwrap() {
            places.extend(logs(&pods, namespace, &pod).await);
            if let Some(text) = metrics(&pod).await {
                places.push((format!("metrics of {namespace}/{}", pod.metadata.name.unwrap()), text));
            }
        }
    }
    for (place, text) in &places {
        for (name, value) in &secrets {
            assert!(!text.contains(value.as_str()), "the value of {name} shows in {place}");
        }
    }
    println!("no value of {} secrets shows in {} places", secrets.len(), places.len());
}

async fn values(tenant: &Tenant, more: &[&str]) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> =
        more.iter().map(|value| ("a secret of the test".to_owned(), (*value).to_owned())).collect();
    for secret in tenant.api::<Secret>().list(&ListParams::default()).await.unwrap() {
        let name = secret.metadata.name.clone().unwrap();
        for (key, value) in secret.data.unwrap_or_default() {
            let value = String::from_utf8(value.0).unwrap_or_default();
            if !NAMES.contains(&key.as_str()) && value.len() >= SHORTEST {
                found.push((format!("{name}/{key}"), value));
            }
        }
    }
    found
}

async fn logs(pods: &Api<Pod>, namespace: &str, pod: &Pod) -> Vec<(String, String)> {
    let name = pod.metadata.name.clone().unwrap();
    let spec = pod.spec.clone().unwrap();
    let containers = spec.containers.into_iter().chain(spec.init_containers.unwrap_or_default());
    let mut texts = Vec::new();
    for container in containers {
        for previous in [false, true] {
            let wanted =
                LogParams { container: Some(container.name.clone()), previous, ..LogParams::default() };
            // A container that was not restarted has no previous log.
            if let Ok(text) = pods.logs(&name, &wanted).await {
                texts.push((format!("log of {namespace}/{name} {}", container.name), text));
            }
        }
    }
    texts
}

/// What `/metrics` of a running pod says. Pods are reached directly: this machine is the node.
pub async fn metrics(pod: &Pod) -> Option<String> {
    get(pod, "/metrics").await.map(|(_, text)| text)
}

/// An endpoint of a running pod: status and body.
pub async fn get(pod: &Pod, path: &str) -> Option<(u16, String)> {
    let address = pod.status.as_ref()?.pod_ip.clone()?;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = http.get(format!("http://{address}:8080{path}")).send().await.ok()?;
    Some((answer.status().as_u16(), answer.text().await.ok()?))
}

fn process_list() -> String {
    let output = std::process::Command::new("ps").args(["-e", "-o", "args"]).output().unwrap();
    let all = String::from_utf8_lossy(&output.stdout).into_owned();
    // The tests' own helpers are no part of the product.
    all.lines()
        .filter(|line| line.contains("ems-bots") && !line.contains("dev/"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Gives a name to the cluster's DNS.
pub fn pods_resolve(name: &str) {
    dev(&["cluster", "host", name], None);
}
