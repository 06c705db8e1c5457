//! Server-side apply, creation, status and finalizers against the fake API server.

use std::collections::BTreeSet;

use ems_bots::kube_util::{
    Created, Outcome, apply,
    apply::{add_finalizer, remove_finalizer},
    apply_status, create_or_read, orphans,
};
use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{ConfigMap, Secret, Service},
};
use serde_json::{Value, json};

use super::fake_api::FakeApi;

const ME: &str = "me";

fn service(spec: &Value) -> Service {
    let metadata = json!({"name": "a", "namespace": "n", "labels": {"x": "y"}});
    serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
}

fn writes(api: &FakeApi) -> usize {
    api.take_calls().iter().filter(|call| call.is_write()).count()
}

#[tokio::test]
async fn an_object_is_created_then_left_alone_then_changed() {
    let api = FakeApi::default();
    let client = api.client();
    let wanted = service(&json!({"clusterIP": "None", "ports": [{"port": 8080, "name": "http"}]}));
    assert!(matches!(apply(&client, ME, &wanted).await.unwrap(), Outcome::Created(_)));
    api.edit("services", "n", "a", |live| live["spec"]["sessionAffinity"] = "None".into());
    api.take_calls();
    assert!(matches!(apply(&client, ME, &wanted).await.unwrap(), Outcome::Unchanged(_)));
    assert_eq!(writes(&api), 0, "an apply that changes nothing must not be sent");
    api.edit("services", "n", "a", |live| live["spec"]["ports"][0]["port"] = 1.into());
    assert!(matches!(apply(&client, ME, &wanted).await.unwrap(), Outcome::Changed(_)));
    assert_eq!(api.get("services", "n", "a").unwrap()["spec"]["ports"][0]["port"], 8080);
}

#[tokio::test]
async fn a_field_that_is_no_longer_wanted_goes() {
    let api = FakeApi::default();
    let client = api.client();
    apply(&client, ME, &service(&json!({"clusterIP": "None", "externalName": "x"}))).await.unwrap();
    let less = service(&json!({"clusterIP": "None"}));
    assert!(apply(&client, ME, &less).await.unwrap().has_written());
    assert!(api.get("services", "n", "a").unwrap()["spec"]["externalName"].is_null());
    assert!(!apply(&client, ME, &less).await.unwrap().has_written());
}

#[tokio::test]
async fn an_existing_object_is_read_and_not_changed() {
    let api = FakeApi::default();
    let client = api.client();
    let secret = |value: &str| -> Secret {
        serde_json::from_value(json!({"metadata": {"name": "s", "namespace": "n"}, "immutable": true,
            "stringData": {"phrase": value}}))
        .unwrap()
    };
    assert!(matches!(create_or_read(&client, ME, &secret("first")).await.unwrap(), Created::New(_)));
    let Created::Existing(found) = create_or_read(&client, ME, &secret("second")).await.unwrap() else {
        panic!("a second one was made")
    };
    assert_eq!(found.string_data.unwrap()["phrase"], "first");
}

#[tokio::test]
async fn a_status_is_written_only_if_it_differs_and_keeps_what_others_own() {
    let api = FakeApi::default();
    let client = api.client();
    api.put(
        "statefulsets",
        json!({"metadata": {"name": "a", "namespace": "n"},
        "spec": {"serviceName": "a", "selector": {}, "template": {}}}),
    );
    let live =
        || -> StatefulSet { serde_json::from_value(api.get("statefulsets", "n", "a").unwrap()).unwrap() };
    let conditions = |types: &[&str]| {
        let list: Vec<Value> = types.iter().map(|t| json!({"type": t, "status": "True"})).collect();
        json!({"replicas": 1, "conditions": list})
    };
    assert!(apply_status(&client, ME, &live(), &conditions(&["A", "B"])).await.unwrap());
    assert!(apply_status(&client, "other", &live(), &conditions(&["B", "C"])).await.unwrap());
    assert!(!apply_status(&client, ME, &live(), &conditions(&["A", "B"])).await.unwrap());
    assert!(apply_status(&client, ME, &live(), &conditions(&["A"])).await.unwrap());
    let types: Vec<String> = api.get("statefulsets", "n", "a").unwrap()["status"]["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["type"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(types, ["A", "B", "C"], "B belongs to the other manager too");
    assert!(apply_status(&client, "other", &live(), &conditions(&["C"])).await.unwrap());
    assert_eq!(
        api.get("statefulsets", "n", "a").unwrap()["status"]["conditions"].as_array().unwrap().len(),
        2
    );
}

#[tokio::test]
async fn a_finalizer_comes_and_goes_without_touching_others() {
    let api = FakeApi::default();
    let client = api.client();
    api.put("configmaps", json!({"metadata": {"name": "a", "namespace": "n", "finalizers": ["other"]}}));
    let live = || -> ConfigMap { serde_json::from_value(api.get("configmaps", "n", "a").unwrap()).unwrap() };
    assert!(add_finalizer(&client, ME, &live(), "mine").await.unwrap());
    assert!(!add_finalizer(&client, ME, &live(), "mine").await.unwrap());
    assert_eq!(live().metadata.finalizers.unwrap(), ["other", "mine"]);
    assert!(remove_finalizer(&client, &live(), "mine").await.unwrap());
    assert_eq!(live().metadata.finalizers.unwrap(), ["other"]);
}

#[tokio::test]
async fn a_finalizer_does_not_bring_a_deleted_object_back() {
    let api = FakeApi::default();
    let client = api.client();
    let stale = api.put("configmaps", json!({"metadata": {"name": "a", "namespace": "n"}}));
    let stale: ConfigMap = serde_json::from_value(stale).unwrap();
    api.delete("configmaps", "n", "a");
    assert!(add_finalizer(&client, ME, &stale, "mine").await.unwrap_err().is_conflict());
    assert!(api.get("configmaps", "n", "a").is_none());
}

#[tokio::test]
async fn orphans_are_known_by_owner_and_not_by_label() {
    let api = FakeApi::default();
    let client = api.client();
    for (name, uid) in [("mine", "u1"), ("kept", "u1"), ("copied-label", "u2")] {
        api.put(
            "configmaps",
            json!({"metadata": {"name": name, "namespace": "n", "labels": {"a": "b"},
            "ownerReferences": [{"uid": uid, "apiVersion": "v1", "kind": "X", "name": "x"}]}}),
        );
    }
    let keep = BTreeSet::from(["kept".to_owned()]);
    let deleted = orphans::delete_orphans::<ConfigMap>(&client, "n", "a=b", "u1", &keep).await.unwrap();
    assert_eq!(deleted, ["mine"]);
    assert_eq!(api.names("configmaps", "n"), ["copied-label", "kept"]);
}

#[tokio::test]
async fn failures_name_the_object_and_their_kind() {
    for (code, category) in
        [(403, "kube_forbidden"), (409, "kube_conflict"), (429, "kube_rate_limited"), (500, "kube_server")]
    {
        let api = FakeApi::default();
        api.fault(code, 1, |_| true);
        let error = apply(&api.client(), ME, &service(&json!({}))).await.unwrap_err();
        assert_eq!(error.category(), category);
        assert_eq!(error.to_string(), "cannot get Service n/a");
        assert_eq!(error.detail(), "a fault of this test");
    }
}
