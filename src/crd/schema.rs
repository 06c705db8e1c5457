//! From the derived definition to the one that is installed.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::Value;

/// The definition of `K` without what an API server refuses, warns of or does not need.
pub(super) fn definition<K: CustomResourceExt>() -> CustomResourceDefinition {
    let mut crd = K::crd();
    for version in &mut crd.spec.versions {
        let Some(validation) = version.schema.as_mut() else { continue };
        let Some(schema) = validation.open_api_v3_schema.take() else { continue };
        // Both conversions are between a type and its own JSON form.
        let mut json = serde_json::to_value(schema).unwrap_or_default();
        tidy(&mut json, false);
        validation.open_api_v3_schema = serde_json::from_value(json).ok();
    }
    crd
}

/// - `nullable`: an explicit null is dropped by the API server where it is not allowed, which is
///   the same as leaving the field out, and CEL rules then never see one.
/// - Formats of unsigned integers are unknown to the API server.
/// - The description of Kubernetes' own affinity type would be half of the whole definition.
fn tidy(schema: &mut Value, foreign: bool) {
    match schema {
        Value::Object(map) => {
            let is_schema = map.contains_key("type") || map.contains_key("x-kubernetes-int-or-string");
            if is_schema {
                map.remove("nullable");
                let unsigned =
                    map.get("format").and_then(Value::as_str).is_some_and(|f| f.starts_with("uint"));
                if unsigned {
                    map.remove("format");
                }
                if foreign {
                    map.remove("description");
                }
            }
            for (name, value) in map.iter_mut() {
                if name != "default" && name != "enum" {
                    tidy(value, foreign || (!is_schema && name == "affinity"));
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| tidy(item, foreign)),
        _ => {}
    }
}

/// The definition as a YAML document, without the leading separator.
pub(super) fn yaml(crd: &CustomResourceDefinition) -> Result<String, serde_yaml::Error> {
    // By way of JSON values: their maps are sorted, so that the text depends on nothing else.
    let mut json = serde_json::to_value(crd).map_err(<serde_yaml::Error as serde::ser::Error>::custom)?;
    whole_numbers(&mut json);
    serde_yaml::to_string(&json)
}

/// Bounds are floating-point numbers in the type, but `0.0` comes back from an API server as `0`,
/// which whoever compares the two takes for a change.
fn whole_numbers(value: &mut Value) {
    match value {
        Value::Number(number) => {
            let text = number.to_string();
            let whole = text.strip_suffix(".0").and_then(|digits| digits.parse::<i64>().ok());
            if let Some(whole) = whole {
                *number = whole.into();
            }
        }
        Value::Object(map) => map.values_mut().for_each(whole_numbers),
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        _ => {}
    }
}
