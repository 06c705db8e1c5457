//! Live locations. Where somebody is stands in messages of their own.

use serde_json::Value;

use super::lenient::{at, str_at};

const MINUTE_MS: u64 = 60_000;

/// That somebody began or ceased to share where they are.
pub(super) fn sharing_words(content: &Value) -> String {
    if at(content, &["live"]).and_then(Value::as_bool) != Some(true) {
        return "live location is no longer shared".to_owned();
    }
    let minutes = at(content, &["timeout"]).and_then(Value::as_u64).map(|ms| ms.div_ceil(MINUTE_MS));
    let span = minutes.map_or_else(String::new, |minutes| format!(" for {minutes} min"));
    let what = str_at(content, &["description"]).map_or_else(String::new, |what| format!(": {what}"));
    format!("live location is shared{span}{what}")
}
