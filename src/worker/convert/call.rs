//! Calls: who calls whom, and who is in a call.

use serde_json::Value;

use super::{
    draft::Draft,
    lenient::{at, str_at},
};

/// A message of the signalling of a call.
pub(super) fn signalled(draft: &mut Draft, content: &Value) {
    part_of(draft, content);
    draft.reason(str_at(content, &["reason"]));
    if let Some(person) = str_at(content, &["invitee"]) {
        draft.person(person, "target");
    }
    if let Some(words) = words(content) {
        draft.text(Some(words.to_owned()));
    }
}

/// Somebody's part in a call, which a state event of theirs tells.
pub(super) fn membership(draft: &mut Draft, before: Option<&Value>, content: &Value) {
    part_of(draft, content);
    if let Some(reason) = str_at(content, &["leave_reason"]) {
        draft.reason(Some(reason));
    }
    let words = match (before.is_some_and(takes_part), takes_part(content)) {
        (false, true) => "joined the call",
        (true, true) => "stays in the call",
        (_, false) => "left the call",
    };
    draft.text(Some(words.to_owned()));
}

fn part_of(draft: &mut Draft, content: &Value) {
    if let Some(id) = str_at(content, &["call_id"]).filter(|id| !id.is_empty()) {
        draft.relate("call", id, "part_of");
    }
}

/// Older clients list the devices that take part; newer ones have a state event for each, which
/// becomes empty.
fn takes_part(content: &Value) -> bool {
    match at(content, &["memberships"]).and_then(Value::as_array) {
        Some(devices) => !devices.is_empty(),
        None => content.as_object().is_some_and(|content| {
            content.keys().any(|key| !matches!(key.as_str(), "leave_reason" | "reason"))
        }),
    }
}

fn words(content: &Value) -> Option<&'static str> {
    let told = |key: &str| str_at(content, &[key]);
    if let Some(sdp) = str_at(content, &["offer", "sdp"]) {
        return Some(if sdp.contains("m=video") { "video call" } else { "voice call" });
    }
    match told("notification_type").or_else(|| told("notify_type"))? {
        "ring" => Some("the call rings"),
        _ => Some("a call began"),
    }
}
