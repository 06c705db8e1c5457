//! The console from the outside: what it counts, whether it is there, and what the API server does if it is not.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, api::ListParams};

use super::{
    Tenant,
    actions::is_ready,
    eventually,
    sql::count,
    tenant::{kubectl_in, system_namespace},
};

const NAME: &str = "ems-bots-console";
const DEPLOYMENT: &str = "deployment/ems-bots-console";

/// All its pods, also those that are about to end.
pub async fn pods(client: &Client) -> Vec<Pod> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &system_namespace());
    let wanted = ListParams::default().labels("app.kubernetes.io/component=console");
    pods.list(&wanted).await.unwrap().items
}

/// Whether a record of this action waits in the console's own database for a trail of this tenant.
pub fn waits(tenant: &Tenant, action: &str) -> bool {
    let query = format!(
        "SELECT count(*) FROM console.waiting JOIN console.trail ON trail.id = waiting.trail
         WHERE trail.namespace = '{}' AND position(convert_to('{action}', 'UTF8') IN waiting.body) > 0",
        tenant.namespace
    );
    count("console", &query) > 0
}

fn kubectl(arguments: &[&str]) {
    let (done, said) = kubectl_in(&system_namespace(), arguments);
    assert!(done, "kubectl {arguments:?}: {said}");
}

/// Waits until there are so many pods of it, and all of them are ready.
pub async fn wait(client: &Client, replicas: usize) {
    eventually(&format!("{replicas} pods of the console"), Duration::from_mins(2), || async {
        let all = pods(client).await;
        let ready = all.iter().filter(|pod| is_ready(pod)).count();
        if (all.len(), ready) == (replicas, replicas) {
            Ok(())
        } else {
            Err(format!("{ready} of {}", all.len()))
        }
    })
    .await;
}

pub async fn scale(client: &Client, replicas: usize) {
    kubectl(&["scale", DEPLOYMENT, &format!("--replicas={replicas}")]);
    wait(client, replicas).await;
}

/// Replaces all its pods, as an upgrade does.
pub fn restart() {
    kubectl(&["rollout", "restart", DEPLOYMENT]);
    kubectl(&["rollout", "status", DEPLOYMENT, "--timeout=3m"]);
}

/// Failure policy `Fail`, for as long as this is kept. A test that failed leaves a console behind that works for others.
#[derive(Debug)]
pub struct Strict(());

impl Strict {
    pub fn set() -> Self {
        policy("Fail");
        Self(())
    }
}

impl Drop for Strict {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = kubectl_in(&system_namespace(), &["scale", DEPLOYMENT, "--replicas=2"]);
        }
        policy("Ignore");
    }
}

fn policy(policy: &str) {
    let patch = format!(r#"[{{"op":"replace","path":"/webhooks/0/failurePolicy","value":"{policy}"}}]"#);
    let (done, said) = kubectl_in(
        &system_namespace(),
        &["patch", "validatingwebhookconfiguration", NAME, "--type=json", "--patch", &patch],
    );
    // A second panic would hide the first one.
    assert!(done || std::thread::panicking(), "{said}");
}
