//! What a real API server says to our definitions: it takes them, each rule answers with its
//! sentence, and billing's admission policy holds. Needs neither homeserver nor database.

use std::{collections::BTreeMap, fs};

use kube::{
    Api, Client,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::support::{Tenant, services::repository, unique};

const KINDS: [&str; 2] = ["AdminBot", "AuditBot"];

#[derive(Deserialize)]
struct Cases {
    rules: Vec<Case<Value>>,
    changes: Vec<Case<(Value, Value)>>,
}

#[derive(Deserialize)]
struct Case<T> {
    kind: Option<String>,
    field: String,
    #[serde(default)]
    beside: BTreeMap<String, Value>,
    sentence: String,
    accepted: Vec<T>,
    refused: Vec<T>,
}

impl<T> Case<T> {
    fn is_of(&self, kind: &str) -> bool {
        self.kind.as_deref().is_none_or(|only| only == kind)
    }

    /// The smallest bot with this value. It is paused, so that the operator leaves it alone.
    fn object(&self, kind: &str, value: &Value) -> DynamicObject {
        let mut object = minimal(kind, "rules");
        for (at, value) in self.beside.iter().chain([(&self.field, value)]) {
            set(&mut object, at, value.clone());
        }
        serde_json::from_value(object).unwrap()
    }
}

fn cases() -> Cases {
    let text = fs::read_to_string(repository().join("tests/data/crd_rules.yaml")).unwrap();
    serde_yaml::from_str(&text).unwrap()
}

fn minimal(kind: &str, name: &str) -> Value {
    json!({"apiVersion": "ems.element.io/v1alpha1", "kind": kind,
        "metadata": {"name": name, "annotations": {"ems.element.io/paused": "true"}},
        "spec": {"homeserver": {"serverName": "rules.example", "url": "http://rules.example", "plan": "Gold"}}})
}

fn set(object: &mut Value, pointer: &str, value: Value) {
    let (parents, last) = pointer.rsplit_once('/').unwrap();
    let mut place = object;
    for key in parents.split('/').skip(1) {
        place = place.as_object_mut().unwrap().entry(key).or_insert_with(|| json!({}));
    }
    let place = place.as_object_mut().unwrap();
    if value.is_null() {
        place.remove(last);
    } else {
        place.insert(last.to_owned(), value);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_committed_definitions_are_accepted_as_they_are() {
    let tenant = Tenant::create(&unique("definitions"), false).await;
    for plural in ["adminbots", "auditbots"] {
        let text = fs::read_to_string(repository().join(format!("crds/{plural}.yaml"))).unwrap();
        let object: DynamicObject = serde_yaml::from_str(&text).unwrap();
        let dry = PatchParams { dry_run: true, ..PatchParams::apply("definitions").force() };
        let name = format!("{plural}.ems.element.io");
        let taken = tenant.api_of(&object).patch(&name, &dry, &Patch::Apply(&object)).await.unwrap();
        // Nothing of the schema was dropped or changed on the way.
        let schema = |data: &Value| data["spec"]["versions"][0]["schema"].clone();
        assert!(schema(&taken.data) == schema(&object.data), "{plural}");
        let conditions = taken.data["status"]["conditions"].as_array().unwrap();
        let of =
            |kind: &str| conditions.iter().find(|one| one["type"] == kind).map(|one| one["status"].clone());
        assert_eq!(of("Established"), Some(json!("True")));
        assert_eq!(of("NonStructuralSchema"), None);
    }
    tenant.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_rule_answers_with_its_sentence() {
    let tenant = Tenant::create(&unique("rules"), false).await;
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let mut asked = 0;
    for kind in KINDS {
        let bots = tenant.bots(kind);
        for case in cases().rules.iter().filter(|case| case.is_of(kind)) {
            for value in &case.accepted {
                let done = bots.create(&dry, &case.object(kind, value)).await;
                done.unwrap_or_else(|error| panic!("{kind} {}: {value}: {error}", case.field));
            }
            for value in &case.refused {
                let done = bots.create(&dry, &case.object(kind, value)).await;
                says(&format!("{kind} {}: {value}", case.field), done, &case.sentence);
            }
            asked += case.accepted.len() + case.refused.len();
        }
    }
    println!("{asked} objects");
    tenant.remove().await;
}

fn says<T: std::fmt::Debug>(what: &str, done: kube::Result<T>, sentence: &str) {
    match done {
        Err(kube::Error::Api(status)) => {
            assert!(status.message.contains(sentence), "{what}: {}", status.message);
        }
        other => panic!("{what}: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_rule_about_changes_answers_with_its_sentence() {
    let tenant = Tenant::create(&unique("changes"), false).await;
    for kind in KINDS {
        let bots = tenant.bots(kind);
        for case in cases().changes.iter().filter(|case| case.is_of(kind)) {
            for (before, after) in &case.accepted {
                let done = change(&bots, case, kind, before, after).await;
                done.unwrap_or_else(|error| panic!("{kind} {}: {before} -> {after}: {error}", case.field));
            }
            for (before, after) in &case.refused {
                let done = change(&bots, case, kind, before, after).await;
                says(&format!("{kind} {}: {before} -> {after}", case.field), done, &case.sentence);
            }
        }
    }
    tenant.remove().await;
}

/// Makes the object before, asks for the one after, and takes the first away again.
async fn change(
    bots: &Api<DynamicObject>,
    case: &Case<(Value, Value)>,
    kind: &str,
    before: &Value,
    after: &Value,
) -> kube::Result<DynamicObject> {
    let old = case.object(kind, before);
    let made = bots.create(&PostParams::default(), &old).await.unwrap();
    let in_status = case.field.starts_with("/status");
    if in_status && old.data.get("status").is_some() {
        let patch = Patch::Merge(json!({"status": old.data["status"]}));
        bots.patch_status("rules", &PatchParams::default(), &patch).await.unwrap();
    }
    // What is left out must be taken away, so the whole is replaced and nothing merged.
    let mut new = case.object(kind, after);
    new.metadata.uid = made.metadata.uid;
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let done = loop {
        new.metadata.resource_version = bots.get("rules").await.unwrap().metadata.resource_version;
        let done = if in_status {
            bots.replace_status("rules", &dry, &new).await
        } else {
            bots.replace("rules", &dry, &new).await
        };
        // The operator says on every bot that it is paused; that may come in between.
        match done {
            Err(kube::Error::Api(status)) if status.is_conflict() => {}
            done => break done,
        }
    };
    bots.delete("rules", &DeleteParams::default()).await.unwrap();
    crate::support::eventually("deletion of a paused bot", std::time::Duration::from_secs(30), || async {
        match bots.get_opt("rules").await.unwrap() {
            None => Ok(()),
            Some(left) => Err(format!("{:?}", left.metadata.finalizers)),
        }
    })
    .await;
    done
}

/// A client that acts as somebody of a group.
async fn person(group: &str) -> Client {
    let mut config = kube::Config::infer().await.unwrap();
    config.auth_info.impersonate = Some(format!("somebody of {group}"));
    config.auth_info.impersonate_groups = Some(vec![group.to_owned()]);
    Client::try_from(config).unwrap()
}

async fn grant(tenant: &Tenant, group: &str, role: &str) {
    tenant
        .apply(&json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": format!("{group}-{role}"), "namespace": tenant.namespace},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": group}]}))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn billing_may_order_and_change_what_is_billed() {
    let tenant = Tenant::create(&unique("billers"), false).await;
    let billers = unique("billers-of");
    grant(&tenant, &billers, "ems-bots-billing").await;
    let billing = Tenant { namespace: tenant.namespace.clone(), client: person(&billers).await };
    let bots = billing.bots("AuditBot");
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    crate::support::eventually("the role", std::time::Duration::from_secs(10), || async {
        bots.create(&dry, &serde_json::from_value(ordered()).unwrap()).await.map_err(|e| e.to_string())
    })
    .await;
    println!("-- what names a Secret, a proxy or a switch of the platform's is not ordered");
    let reference = json!({"name": "a", "key": "b"});
    for (field, value) in [
        ("/spec/homeserver/adminApi/accessToken", reference.clone()),
        ("/spec/homeserver/adminApi/registrationSharedSecret", reference),
        ("/spec/homeserver/caSecretRef", json!({"name": "a"})),
        ("/spec/database/secretRef", json!({"name": "other"})),
        ("/spec/database/caSecretRef", json!({"name": "a"})),
        ("/spec/database/writer", json!({"secretRef": {"name": "a"}})),
        ("/spec/database/reader", json!({"secretRef": {"name": "a"}})),
        ("/spec/database/eraser", json!({"secretRef": {"name": "a"}})),
        ("/spec/worker/proxy", json!({"url": "http://proxy.example"})),
        (
            "/spec/media/bucket",
            json!({"endpoint": "https://s3.evil.example", "name": "mallory", "secretRef": {"name": "a"}}),
        ),
        ("/metadata/annotations/ems.element.io~1abandon-cleanup", json!("true")),
    ] {
        let mut order = ordered();
        match field.strip_prefix("/metadata/annotations/") {
            Some(name) => order["metadata"]["annotations"] = json!({name.replace("~1", "/"): value}),
            None => set(&mut order, field, value),
        }
        says(field, bots.create(&dry, &serde_json::from_value(order).unwrap()).await, "billing can");
    }
    println!("-- the order itself, a change, a cancellation");
    bots.create(&PostParams::default(), &serde_json::from_value(ordered()).unwrap()).await.unwrap();
    allowed_and_refused(&bots).await;
    println!("-- somebody of the platform who bills too is not held to it");
    grant(&tenant, &billers, "ems-bots-platform").await;
    crate::support::eventually("the second role", std::time::Duration::from_secs(10), || async {
        let patch = Patch::Merge(json!({"spec": {"displayName": "Ours"}}));
        bots.patch("ordered", &PatchParams::default(), &patch).await.map_err(|error| error.to_string())
    })
    .await;
    tenant.remove().await;
}

/// What billing orders; not opted in, so nothing comes of it.
fn ordered() -> Value {
    let mut order = minimal("AuditBot", "ordered");
    order["metadata"]["annotations"] = json!({"ems.element.io/change-reason": "order 1"});
    order
}

async fn allowed_and_refused(bots: &Api<DynamicObject>) {
    let dry = PatchParams { dry_run: true, ..PatchParams::default() };
    for allowed in [
        json!({"spec": {"homeserver": {"plan": "Platinum"}}}),
        json!({"spec": {"suspend": true}}),
        json!({"metadata": {"annotations": {"ems.element.io/change-reason": "invoice 2"}}}),
        json!({"metadata": {"annotations": {"ems.element.io/change-reason": null}}}),
    ] {
        bots.patch("ordered", &dry, &Patch::Merge(&allowed))
            .await
            .unwrap_or_else(|e| panic!("{allowed}: {e}"));
    }
    for refused in [
        json!({"spec": {"homeserver": {"url": "http://evil.example"}}}),
        json!({"spec": {"homeserver": {"publicURL": "http://evil.example"}}}),
        json!({"spec": {"homeserver": {"adminApi": {"accessToken": {"name": "a", "key": "b"}}}}}),
        json!({"spec": {"displayName": "Mallory"}}),
        json!({"spec": {"rooms": {"directMessages": false}}}),
        json!({"spec": {"rooms": null, "suspend": true, "deletionPolicy": "Deactivate"}}),
        json!({"spec": {"database": {"secretRef": {"name": "other"}}}}),
        json!({"spec": {"worker": {"proxy": {"url": "http://evil.example"}}}}),
        json!({"spec": {"retention": {"keepForDays": 1}}}),
        json!({"spec": {"media": {"bucket": {"endpoint": "https://s3.evil.example", "name": "mallory",
            "secretRef": {"name": "a"}}}}}),
        json!({"metadata": {"annotations": {"ems.element.io/paused": "true"}}}),
        json!({"metadata": {"labels": {"a": "b"}}}),
        json!({"metadata": {"finalizers": ["evil.example/stay"]}}),
    ] {
        let done = bots.patch("ordered", &dry, &Patch::Merge(&refused)).await;
        says(&refused.to_string(), done, "billing can change plan, suspend and the change reason only");
    }
}
