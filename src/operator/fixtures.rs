//! Bots for the tests of the pure steps.

use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};

use super::{context::Settings, dereference::Found, names::Names};
use crate::crd::{AuditBot, Bot};

pub(super) const URL: &str = "http://synapse:8008";
pub(super) const UID: &str = "6f1c2a9b-0000-4000-8000-000000000000";

/// A bot named like its kind; `spec` is laid over the smallest possible one.
pub(super) fn bot<B: Bot>(spec: &Value) -> B {
    let mut full = json!({"homeserver": {"serverName": "example.org", "url": URL, "plan": "Gold"}});
    lay_over(&mut full, spec);
    serde_json::from_value(json!({
        "apiVersion": B::api_version(&()), "kind": B::kind(&()), "spec": full,
        "metadata": {"name": B::KIND.slug(), "namespace": "tenant", "uid": UID, "generation": 3,
            "creationTimestamp": "2026-01-01T00:00:00Z"},
    }))
    .unwrap()
}

fn lay_over(below: &mut Value, above: &Value) {
    match (below, above) {
        (Value::Object(below), Value::Object(above)) => {
            for (key, value) in above {
                lay_over(below.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (below, above) => *below = above.clone(),
    }
}

pub(super) fn secret(name: &str, data: &[&str]) -> Secret {
    let data: serde_json::Map<String, Value> = data
        .iter()
        .map(|pair| pair.split_once('=').unwrap())
        .map(|(key, value)| {
            let encoded = serde_json::to_value(k8s_openapi::ByteString(value.as_bytes().to_vec())).unwrap();
            (key.to_owned(), encoded)
        })
        .collect();
    serde_json::from_value(
        json!({"metadata": {"name": name, "annotations": {"ems.element.io/homeserver": URL,
            "ems.element.io/proxy": "http://proxy:3128",
            "ems.element.io/bucket": "https://s3.example.org:9443/attachments/audit/example.org"}},
        "data": data}),
    )
    .unwrap()
}

/// Everything that a bot without special wishes refers to.
pub(super) fn found() -> Found {
    Found {
        credential: Some(secret("ems-bots-homeserver", &["registration-shared-secret=shared"])),
        database: Some(secret(
            "ems-bots-database",
            &["host=db", "port=5433", "dbname=d", "username=owner", "password=pw"],
        )),
        ..Found::default()
    }
}

pub(super) fn names<B: Bot>() -> Names {
    Names::new(B::KIND, B::KIND.slug(), UID)
}

pub(super) fn audit_bot(spec: &Value) -> AuditBot {
    bot(spec)
}

pub(super) fn settings() -> Settings {
    Settings {
        worker_image: "registry.example/ems-bots:1".to_owned(),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        image_pull_secrets: vec!["registry".to_owned()],
        allowed_element_web_hosts: Vec::new(),
        api_server_ports: vec![443, 6443],
        worker_egress_ports: vec![5353],
        paused: false,
        resync: std::time::Duration::from_mins(10),
        service_account: ("ems-bots-system".to_owned(), "ems-bots-operator".to_owned()),
        console: None,
    }
}
