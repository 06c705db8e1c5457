//! The part of an API server that validates custom resources: types, bounds, unknown fields, and
//! then the CEL rules.

use ems_bots::crd;
use kube::core::cel::Validator;
use serde_json::Value;

/// The schema of a kind.
pub(crate) fn of(kind: &str) -> Value {
    let definition = crd::all()
        .into_iter()
        .find(|definition| definition.spec.names.kind == kind)
        .unwrap_or_else(|| panic!("no definition of {kind}"));
    let version = &definition.spec.versions[0];
    serde_json::to_value(version.schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap()).unwrap()
}

/// Everything that is wrong with an object.
pub(crate) fn problems(kind: &str, object: &Value) -> Vec<String> {
    let schema = of(kind);
    let mut problems = Vec::new();
    for part in ["spec", "status"] {
        if let Some(value) = object.get(part) {
            structure(part, &schema["properties"][part], value, &mut problems);
        }
    }
    if let Err(errors) = Validator::new().validate(&schema, object, None) {
        problems.extend(errors.as_slice().iter().map(ToString::to_string));
    }
    problems
}

fn structure(path: &str, schema: &Value, value: &Value, problems: &mut Vec<String>) {
    let bound = |key: &str| schema.get(key).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
    let mut wrong = |what: String| problems.push(format!("{path}: {what}"));
    let check_length = |length: usize, least: &str, most: &str| {
        bound(least).is_some_and(|n| length < n) || bound(most).is_some_and(|n| length > n)
    };
    match (schema["type"].as_str().unwrap_or_default(), value) {
        ("object", Value::Object(fields)) => {
            if check_length(fields.len(), "minProperties", "maxProperties") {
                wrong(format!("{} properties", fields.len()));
            }
            for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                if !fields.contains_key(name) {
                    wrong(format!("{name} is missing"));
                }
            }
            for (name, field) in fields {
                match schema["properties"].get(name).or_else(|| schema.get("additionalProperties")) {
                    Some(inner) => structure(&format!("{path}.{name}"), inner, field, problems),
                    None => problems.push(format!("{path}.{name}: unknown field")),
                }
            }
        }
        ("array", Value::Array(items)) => {
            if check_length(items.len(), "minItems", "maxItems") {
                wrong(format!("{} items", items.len()));
            }
            for item in items {
                structure(&format!("{path}[]"), &schema["items"], item, problems);
            }
        }
        ("string", Value::String(text)) => {
            if check_length(text.chars().count(), "minLength", "maxLength") {
                wrong(format!("{} characters", text.chars().count()));
            }
            if schema["enum"].as_array().is_some_and(|known| !known.contains(value)) {
                wrong(format!("{text:?} is not one of {}", schema["enum"]));
            }
        }
        ("integer", Value::Number(number)) if number.is_i64() => {
            let number = number.as_f64();
            if number < schema["minimum"].as_f64()
                || schema["maximum"].as_f64().is_some_and(|most| number > Some(most))
            {
                wrong(format!("{value} is out of bounds"));
            }
        }
        ("boolean", Value::Bool(_)) => {}
        (kind, _) => wrong(format!("is not of type {kind}")),
    }
}
