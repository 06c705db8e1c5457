//! Does a live object already contain what is wanted? (pure)
//!
//! A server-side apply that changes nothing costs the API server as much as a write, so it is
//! worth a comparison. The live object has more than was applied: defaults, status, what others
//! set. Lists are compared element by element; those that the API server treats as sets
//! or maps (`finalizers`, `ownerReferences`, `conditions`) by membership.

use serde_json::Value;

/// Whether `live` contains all of `wanted`.
pub(super) fn contains(live: &Value, wanted: &Value) -> bool {
    contains_at(live, wanted, Place::Plain)
}

/// What the key above says of how a value is compared.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Plain,
    /// Below `requests` and `limits`: the API server rewrites quantities (`1000m` becomes `1`).
    Quantities,
    Set,
}

impl Place {
    fn below(self, key: &str) -> Self {
        match key {
            "requests" | "limits" => Self::Quantities,
            "finalizers" | "ownerReferences" | "conditions" => Self::Set,
            _ => match self {
                Self::Quantities => Self::Quantities,
                Self::Plain | Self::Set => Self::Plain,
            },
        }
    }
}

fn contains_at(live: &Value, wanted: &Value, place: Place) -> bool {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => wanted.iter().all(|(key, value)| {
            live.get(key).map_or_else(|| is_empty(value), |l| contains_at(l, value, place.below(key)))
        }),
        (Value::Array(live), Value::Array(wanted)) if place == Place::Set => {
            wanted.iter().all(|w| live.iter().any(|l| contains_at(l, w, Place::Plain)))
        }
        (Value::Array(live), Value::Array(wanted)) => {
            live.len() == wanted.len()
                && live.iter().zip(wanted).all(|(l, w)| contains_at(l, w, Place::Plain))
        }
        (Value::String(live), Value::String(wanted)) if place == Place::Quantities => {
            live == wanted || (quantity(live).is_some() && quantity(live) == quantity(wanted))
        }
        (live, wanted) => live == wanted,
    }
}

/// The API server drops what is empty.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.values().all(is_empty),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// A resource quantity in thousandths; `None` if it is not one or too big.
pub fn quantity(text: &str) -> Option<i128> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let factor: i128 = match suffix {
        "m" => 1,
        "" => 1_000,
        "k" => 1_000_000,
        "M" => 1_000_000_000,
        "G" => 1_000_000_000_000,
        "T" => 1_000_000_000_000_000,
        "Ki" => 1_000 << 10,
        "Mi" => 1_000 << 20,
        "Gi" => 1_000 << 30,
        "Ti" => 1_000 << 40,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.len() > 9 || whole.len() > 15 {
        return None;
    }
    let digits: i128 = format!("0{whole}{fraction}").parse().ok()?;
    Some(digits * factor / 10_i128.pow(u32::try_from(fraction.len()).ok()?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn defaults_and_foreign_fields_do_not_matter() {
        let live = json!({"spec": {"replicas": 1, "podManagementPolicy": "OrderedReady"}, "status": {}});
        assert!(contains(&live, &json!({"spec": {"replicas": 1}})));
        assert!(!contains(&live, &json!({"spec": {"replicas": 2}})));
        assert!(!contains(&live, &json!({"spec": {"serviceName": "a"}})));
    }

    #[test]
    fn lists_are_compared_element_by_element() {
        let live = json!({"containers": [{"name": "a", "image": "x", "terminationMessagePath": "/dev"}]});
        assert!(contains(&live, &json!({"containers": [{"name": "a", "image": "x"}]})));
        assert!(!contains(&live, &json!({"containers": [{"name": "a", "image": "y"}]})));
        assert!(!contains(&live, &json!({"containers": []})));
    }

    #[test]
    fn finalizers_of_others_do_not_matter() {
        let live = json!({"metadata": {"finalizers": ["other", "mine"]}});
        assert!(contains(&live, &json!({"metadata": {"finalizers": ["mine"]}})));
        assert!(!contains(&live, &json!({"metadata": {"finalizers": ["third"]}})));
    }

    #[test]
    fn what_is_empty_is_contained_in_what_is_absent() {
        assert!(contains(&json!({}), &json!({"emptyDir": {}, "list": [], "nothing": null})));
        assert!(!contains(&json!({}), &json!({"text": ""})));
    }

    #[test]
    fn quantities_are_compared_by_value_where_the_api_server_rewrites_them() {
        let live = json!({"resources": {"requests": {"cpu": "1", "memory": "1Gi"}}});
        assert!(contains(&live, &json!({"resources": {"requests": {"cpu": "1000m", "memory": "1024Mi"}}})));
        assert!(!contains(&live, &json!({"resources": {"requests": {"cpu": "1001m"}}})));
        assert!(!contains(&json!({"value": "1"}), &json!({"value": "1000m"})));
    }

    #[test]
    fn quantities_are_read() {
        assert_eq!(quantity("0.5"), Some(500));
        assert_eq!(quantity("500m"), Some(500));
        assert_eq!(quantity("1Ki"), Some(1_024_000));
        assert_eq!(quantity("."), None);
        assert_eq!(quantity("x"), None);
        assert_eq!(quantity("99999999999999999999"), None);
    }
}
