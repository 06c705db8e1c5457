//! Nothing that a hostile author controls is unbounded, and nothing in a definition is unknown to
//! an API server.

use serde_json::{Value, json};

use super::{KINDS, minimal, schema};
use crate::{
    crd::{self, AdminBot, AuditBot, Bot},
    domain::BotKind,
};

/// Types of Kubernetes' own; the pods made of them are validated by the API server.
const FOREIGN: &[&str] = &["affinity", "tolerations", "conditions"];

fn walk(path: &str, node: &Value, problems: &mut Vec<String>) {
    let has = |key: &str| node.get(key).is_some();
    match node.get("type").and_then(Value::as_str) {
        Some("string") if !has("maxLength") && !has("enum") => problems.push(format!("{path}: no maxLength")),
        Some("array") if !has("maxItems") => problems.push(format!("{path}: no maxItems")),
        Some("object") if has("additionalProperties") && !has("maxProperties") => {
            problems.push(format!("{path}: no maxProperties"));
        }
        Some("integer") if !has("minimum") && node.get("format") != Some(&json!("int64")) => {
            problems.push(format!("{path}: no minimum"));
        }
        _ => {}
    }
    if has("nullable") {
        problems.push(format!("{path}: nullable"));
    }
    if node.get("format").and_then(Value::as_str).is_some_and(|format| format.starts_with("uint")) {
        problems.push(format!("{path}: unsigned format"));
    }
    if node.get("description").is_none()
        && path.contains('.')
        && !path.ends_with("[]")
        && !path.ends_with("{}")
    {
        problems.push(format!("{path}: no description"));
    }
    for (name, child) in node.get("properties").and_then(Value::as_object).into_iter().flatten() {
        if !FOREIGN.contains(&name.as_str()) {
            walk(&format!("{path}.{name}"), child, problems);
        }
    }
    if let Some(items) = node.get("items") {
        walk(&format!("{path}[]"), items, problems);
    }
    if let Some(values) = node.get("additionalProperties") {
        walk(&format!("{path}{{}}"), values, problems);
    }
}

#[test]
fn every_string_list_and_map_is_bounded_and_every_field_described() {
    for kind in KINDS {
        let schema = schema(kind);
        let mut problems = Vec::new();
        for part in ["spec", "status"] {
            walk(part, &schema["properties"][part], &mut problems);
        }
        assert!(problems.is_empty(), "{kind}:\n{}", problems.join("\n"));
    }
}

#[test]
fn conditions_are_a_map_by_type() {
    for kind in KINDS {
        let conditions = &schema(kind)["properties"]["status"]["properties"]["conditions"];
        assert_eq!(conditions["x-kubernetes-list-type"], "map");
        assert_eq!(conditions["x-kubernetes-list-map-keys"], json!(["type"]));
        assert!(conditions["items"]["properties"]["observedGeneration"].is_object());
    }
}

#[test]
fn a_definition_fits_into_the_annotation_of_kubectl_apply() {
    for definition in crd::all() {
        let text = crd::to_yaml(&definition).unwrap();
        assert!(text.len() < 200_000, "{} bytes", text.len());
    }
}

#[test]
fn kinds_have_short_names_and_a_category() {
    for (definition, short) in crd::all().into_iter().zip(["adb", "aub"]) {
        assert_eq!(definition.spec.names.short_names.unwrap(), [short]);
        assert_eq!(definition.spec.names.categories.unwrap(), ["ems"]);
        assert_eq!(definition.spec.scope, "Namespaced");
        assert!(definition.spec.versions[0].subresources.as_ref().unwrap().status.is_some());
    }
}

fn parse<K: Bot>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

#[test]
fn defaults_of_the_schema_and_of_the_types_agree() {
    for kind in KINDS {
        let defaults =
            |pointer: &str| schema(kind).pointer(&format!("/properties{pointer}/default")).cloned();
        let typed = match kind {
            BotKind::Admin => serde_json::to_value(parse::<AdminBot>(minimal(kind)).spec).unwrap(),
            BotKind::Audit => serde_json::to_value(parse::<AuditBot>(minimal(kind)).spec).unwrap(),
        };
        for field in [
            "username",
            "displayName",
            "rooms",
            "database",
            "suspend",
            "suspendCapture",
            "deletionPolicy",
            "worker",
        ] {
            assert_eq!(
                defaults(&format!("/spec/properties/{field}")).unwrap(),
                typed[field],
                "{kind} {field}"
            );
        }
        assert_eq!(typed["username"], kind.slug());
        assert_eq!(typed["database"]["secretRef"]["name"], "ems-bots-database");
        assert_eq!(typed["suspendCapture"], "Skip");
        assert_eq!(typed["deletionPolicy"], "Retain");
        assert_eq!(
            typed["rooms"],
            json!({"directMessages": true, "leaveExcluded": false, "localOnly": true})
        );
    }
}
