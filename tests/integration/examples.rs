//! The manifests of examples/ are accepted, complete, and fit together.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use ems_bots::crd::{AdminBot, AuditBot, Bot};
use k8s_openapi::api::{
    core::v1::{Namespace, Secret},
    rbac::v1::RoleBinding,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::crd_schema;

fn documents(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap();
    serde_yaml::Deserializer::from_str(&text)
        .map(|document| {
            serde::Deserialize::deserialize(document).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
        })
        .collect()
}

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(folder);
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    files
}

fn all() -> Vec<(PathBuf, Value)> {
    ["", "tenant", "billing"]
        .into_iter()
        .flat_map(files)
        .flat_map(|file| documents(&file).into_iter().map(move |document| (file.clone(), document)))
        .collect()
}

fn example(name: &str) -> Value {
    documents(&Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name)).remove(0)
}

/// What a type does not know is lost on the way through it.
fn round_trip<T: DeserializeOwned + serde::Serialize>(file: &Path, document: &Value) {
    let typed: T =
        serde_json::from_value(document.clone()).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let back = serde_json::to_value(typed).unwrap();
    let mut lost = Vec::new();
    compare("", document, &back, &mut lost);
    assert!(lost.is_empty(), "{}: unknown: {lost:?}", file.display());
}

fn compare(path: &str, before: &Value, after: &Value, lost: &mut Vec<String>) {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            for (name, value) in before {
                let path = format!("{path}.{name}");
                match after.get(name) {
                    Some(other) => compare(&path, value, other, lost),
                    None => lost.push(path),
                }
            }
        }
        (Value::Array(before), Value::Array(after)) => {
            for (one, other) in before.iter().zip(after) {
                compare(&format!("{path}[]"), one, other, lost);
            }
        }
        (before, after) if before != after => lost.push(path.to_owned()),
        _ => {}
    }
}

#[test]
fn every_document_is_of_a_known_type_and_has_known_fields_only() {
    let mut bots = 0;
    for (file, document) in all() {
        let kind = document["kind"].as_str().unwrap();
        match kind {
            "AdminBot" => round_trip::<AdminBot>(&file, &document),
            "AuditBot" => round_trip::<AuditBot>(&file, &document),
            "Secret" => round_trip::<Secret>(&file, &document),
            "Namespace" => round_trip::<Namespace>(&file, &document),
            "RoleBinding" => round_trip::<RoleBinding>(&file, &document),
            other => panic!("{}: {other}", file.display()),
        }
        if kind.ends_with("Bot") {
            bots += 1;
            assert_eq!(crd_schema::problems(kind, &document), Vec::<String>::new(), "{}", file.display());
        }
    }
    assert!(bots >= 9, "{bots}");
}

#[test]
fn a_wrong_field_would_be_found() {
    let mut bot = example("auditbot-minimal.yaml");
    bot["spec"]["room"] = serde_json::json!({});
    bot["spec"]["homeserver"]["plan"] = "Silver".into();
    bot["spec"]["username"] = "A".into();
    let problems = crd_schema::problems("AuditBot", &bot).join("\n");
    for expected in ["spec.room: unknown field", "\"Silver\" is not one of", "username must be"] {
        assert!(problems.contains(expected), "{problems}");
    }
}

#[test]
fn full_examples_show_every_field() {
    for (kind, file) in [("AdminBot", "adminbot-full.yaml"), ("AuditBot", "auditbot-full.yaml")] {
        let mut missing = Vec::new();
        absent("spec", &crd_schema::of(kind)["properties"]["spec"], &example(file)["spec"], &mut missing);
        // Alternatives of what is shown.
        missing.retain(|path| {
            !path.starts_with("spec.homeserver.adminApi.")
                && path != "spec.rooms.deny"
                && path != "spec.rooms.only"
        });
        assert!(missing.is_empty(), "{file}: {missing:?}");
    }
}

fn absent(path: &str, schema: &Value, value: &Value, missing: &mut Vec<String>) {
    // Types of Kubernetes' own are shown, not explained.
    if path.ends_with("affinity") || path.ends_with("tolerations[]") {
        return;
    }
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        match value.get(name) {
            Some(found) => absent(&format!("{path}.{name}"), inner, found, missing),
            None => missing.push(format!("{path}.{name}")),
        }
    }
    if let (Some(items), Some(found)) = (schema.get("items"), value.as_array()) {
        let merged = found.iter().fold(serde_json::json!({}), |mut all, item| {
            for (name, field) in item.as_object().into_iter().flatten() {
                let place = &mut all[name];
                match (place.as_object_mut(), field.as_object()) {
                    (Some(known), Some(new)) => known.extend(new.clone()),
                    _ => *place = field.clone(),
                }
            }
            all
        });
        absent(&format!("{path}[]"), items, &merged, missing);
    }
}

/// Every `{name: ..}` of a Secret below a field that ends so, with the key if there is one.
fn secrets_of(value: &Value, found: &mut BTreeSet<(String, Option<String>)>) {
    const REFERENCES: &[&str] =
        &["secretRef", "caSecretRef", "accessToken", "registrationSharedSecret", "clientSecret"];
    for (name, inner) in value.as_object().into_iter().flatten() {
        if REFERENCES.contains(&name.as_str()) {
            let key = inner.get("key").and_then(Value::as_str).map(str::to_owned);
            found.insert((inner["name"].as_str().unwrap().to_owned(), key));
        }
        secrets_of(inner, found);
    }
}

#[test]
fn the_secrets_that_examples_need_are_there() {
    let secrets: BTreeMap<String, Value> =
        documents(&Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/secrets.yaml"))
            .into_iter()
            .map(|secret| (secret["metadata"]["name"].as_str().unwrap().to_owned(), secret))
            .collect();
    let mut used: BTreeSet<String> = ["ems-bots-homeserver", "ems-bots-database"].map(str::to_owned).into();
    for file in ["adminbot-full.yaml", "auditbot-full.yaml"] {
        let bot = example(file);
        let mut references = BTreeSet::new();
        secrets_of(&bot["spec"], &mut references);
        for (name, key) in references {
            let secret = secrets.get(&name).unwrap_or_else(|| panic!("{file}: no Secret {name}"));
            if let Some(key) = key {
                assert!(secret["stringData"].get(&key).is_some(), "{file}: no key {key} in {name}");
            }
            if let Some(url) = secret["metadata"]["annotations"].get("ems.element.io/homeserver") {
                assert_eq!(*url, bot["spec"]["homeserver"]["url"], "{name}");
                let proxy = &secret["metadata"]["annotations"]["ems.element.io/proxy"];
                assert_eq!(*proxy, bot["spec"]["worker"]["proxy"]["url"], "{name}");
            }
            if let Some(place) = secret["metadata"]["annotations"].get("ems.element.io/bucket") {
                let bucket = &bot["spec"]["media"]["bucket"];
                let parts = ["endpoint", "name", "prefix"].map(|part| bucket[part].as_str().unwrap());
                assert_eq!(*place, parts.join("/"), "{name}");
            }
            used.insert(name);
        }
    }
    assert_eq!(used, secrets.keys().cloned().collect(), "no Secret is left over");
}

#[test]
fn what_is_applied_on_purchase_names_no_secret() {
    for (file, document) in all() {
        let purchase =
            file.parent().unwrap().ends_with("tenant") || file.parent().unwrap().ends_with("billing");
        if purchase && document["kind"].as_str().unwrap().ends_with("Bot") {
            let mut references = BTreeSet::new();
            secrets_of(&document["spec"], &mut references);
            assert!(references.is_empty(), "{}: {references:?}", file.display());
        }
    }
}

#[test]
fn the_tenant_opens_its_namespace_to_the_charts_service_account() {
    let binding =
        documents(&Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/tenant/operator-access.yaml"))
            .remove(0);
    assert_eq!(binding["roleRef"]["name"], "ems-bots-tenant");
    let values =
        documents(&Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/ems-bots/values.yaml")).remove(0);
    assert_eq!(binding["subjects"][0]["name"], values["serviceAccount"]["name"]);
}

#[test]
fn billing_changes_plan_and_suspend_only() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/billing");
    let mut order = documents(&folder.join("order.yaml")).remove(1)["spec"].clone();
    let mut change = documents(&folder.join("change.yaml")).remove(0)["spec"].clone();
    assert_eq!(change["suspend"], true);
    assert_ne!(change["homeserver"]["plan"], order["homeserver"]["plan"]);
    for spec in [&mut order, &mut change] {
        spec.as_object_mut().unwrap().remove("suspend");
        spec["homeserver"].as_object_mut().unwrap().remove("plan");
    }
    assert_eq!(order, change);
}

#[test]
fn minimal_examples_use_nothing_that_has_no_effect() {
    let bot: AuditBot = serde_json::from_value(example("auditbot-minimal.yaml")).unwrap();
    assert!(bot.fields_without_effect().is_empty());
}
