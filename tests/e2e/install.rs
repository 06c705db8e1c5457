//! The operator is taken out of the cluster and put back.

use std::{collections::BTreeMap, io::Write as _, process::Command};

use k8s_openapi::api::core::v1::Secret;
use kube::api::ListParams;
use serde_json::json;

use crate::support::{Scene, actions, console, services::repository, tenant::system_namespace};

pub(crate) const RELEASE: &str = "ems-bots";

/// What it printed, or what was wrong.
pub(crate) fn try_helm(arguments: &[&str]) -> Result<String, String> {
    let program = std::env::var("HELM").unwrap_or_else(|_| "helm".to_owned());
    let namespace = system_namespace();
    let output =
        Command::new(program).args(arguments).args(["--namespace", &namespace]).output().expect("helm runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

pub(crate) fn helm(arguments: &[&str]) -> String {
    try_helm(arguments).unwrap_or_else(|errors| panic!("helm {arguments:?}: {errors}"))
}

/// Where the chart of this checkout is.
pub(crate) fn chart() -> String {
    repository().join("charts/ems-bots").to_str().unwrap().to_owned()
}

async fn secrets(scene: &Scene) -> BTreeMap<String, Option<String>> {
    let all = scene.tenant.api::<Secret>().list(&ListParams::default()).await.unwrap();
    all.into_iter().map(|secret| (secret.metadata.name.unwrap(), secret.metadata.uid)).collect()
}

/// Installs the chart with these values, and waits for operator and console.
pub(crate) async fn install(scene: &Scene, values: &str) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(values.as_bytes()).unwrap();
    helm(&["install", RELEASE, &chart(), "--values", file.path().to_str().unwrap()]);
    actions::wait_operator(&scene.tenant.client).await;
    console::wait(&scene.tenant.client, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bots_outlive_the_chart_and_go_on_with_the_next_one() {
    let mut scene = Scene::set("uninstall", &["alice"]).await;
    scene.audit_bot().await;
    let room = scene.room("alice", &[], &["auditbot"], json!({"encrypted": true}));
    let trail = scene.trail("auditbot").await;
    let before = secrets(&scene).await;
    let pod = actions::uid(&scene.tenant.worker("auditbot").await.unwrap());

    println!("-- helm uninstall");
    let values = helm(&["get", "values", RELEASE, "--output", "json"]);
    helm(&["uninstall", RELEASE, "--wait"]);
    assert_eq!(scene.tenant.bots("AuditBot").list(&ListParams::default()).await.unwrap().items.len(), 1);
    assert_eq!(secrets(&scene).await, before, "every Secret is still the same");
    assert_eq!(actions::uid(&scene.tenant.worker("auditbot").await.unwrap()), pod, "the worker works on");
    scene.client.send("alice", &room, "without an operator");
    trail.wait_for_text("without an operator").await;

    println!("-- helm install");
    install(&scene, &values).await;
    // What only an operator does.
    scene.tenant.patch_bot("AuditBot", "auditbot", json!({"spec": {"suspend": true}})).await;
    scene.tenant.wait_condition("AuditBot", "auditbot", "Suspended", "True", "").await;
    scene.tenant.patch_bot("AuditBot", "auditbot", json!({"spec": {"suspend": false}})).await;
    scene.tenant.wait_ready("AuditBot", "auditbot").await;
    assert_eq!(secrets(&scene).await, before, "nothing was made anew");
    assert_eq!(trail.count_text("without an operator"), 1);
    scene.end().await;
}
