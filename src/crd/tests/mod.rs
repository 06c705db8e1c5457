//! The definitions as they are installed, asked in process.

mod bounds;
mod convert;
mod rules;

use std::sync::LazyLock;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::core::cel::{CompiledSchema, ErrorKind, Validator, compile_schema};
use serde_json::{Value, json};

use crate::domain::BotKind;

const KINDS: [BotKind; 2] = [BotKind::Admin, BotKind::Audit];

/// The installed schema of a kind, as JSON.
fn schema(kind: BotKind) -> Value {
    let crd: CustomResourceDefinition =
        super::all().into_iter().find(|crd| crd.spec.names.kind == kind.kubernetes_kind()).unwrap();
    serde_json::to_value(crd.spec.versions[0].schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap())
        .unwrap()
}

/// The smallest object that is accepted.
fn minimal(kind: BotKind) -> Value {
    json!({
        "apiVersion": "ems.element.io/v1alpha1",
        "kind": kind.kubernetes_kind(),
        "metadata": {"name": kind.slug(), "namespace": "tenant"},
        "spec": {"homeserver": {
            "serverName": "example.org", "url": "http://synapse.tenant.svc:8008", "plan": "Gold",
        }},
    })
}

/// `object` with the value at a JSON Pointer replaced; missing objects on the way are made. Null
/// removes.
fn with(mut object: Value, pointer: &str, value: Value) -> Value {
    let (parents, last) = pointer.rsplit_once('/').unwrap();
    let mut place = &mut object;
    for key in parents.split('/').skip(1) {
        place = place.as_object_mut().unwrap().entry(key).or_insert_with(|| json!({}));
    }
    let place = place.as_object_mut().unwrap();
    if value.is_null() {
        place.remove(last);
    } else {
        place.insert(last.to_owned(), value);
    }
    object
}

/// The sentences with which an object, or a change, is refused.
fn refusals(kind: BotKind, object: &Value, old: Option<&Value>) -> Vec<String> {
    static COMPILED: LazyLock<[CompiledSchema; 2]> =
        LazyLock::new(|| KINDS.map(|kind| compile_schema(&schema(kind))));
    let compiled = &COMPILED[KINDS.iter().position(|known| *known == kind).unwrap()];
    match Validator::new().validate_compiled(compiled, object, old) {
        Ok(()) => Vec::new(),
        Err(errors) => errors
            .into_vec()
            .into_iter()
            .flat_map(|error| {
                // An error while a rule is evaluated refuses too. The API server then adds the
                // rule's own sentence, which is found here by the rule.
                if error.kind == ErrorKind::EvaluationError {
                    sentences_of(kind, &error.rule)
                } else {
                    vec![error.message]
                }
            })
            .collect(),
    }
}

/// Every rule of a kind: expression and sentence.
fn rules_of(kind: BotKind) -> Vec<(String, String)> {
    fn collect(schema: &Value, found: &mut Vec<(String, String)>) {
        match schema {
            Value::Object(map) => {
                for rule in
                    map.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten()
                {
                    let text =
                        |key: &str| rule.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
                    found.push((text("rule"), text("message")));
                }
                map.values().for_each(|value| collect(value, found));
            }
            Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    collect(&schema(kind), &mut found);
    found
}

/// Several fields can share an expression, with a sentence for each.
fn sentences_of(kind: BotKind, rule: &str) -> Vec<String> {
    rules_of(kind).into_iter().filter(|(text, _)| text == rule).map(|(_, message)| message).collect()
}
