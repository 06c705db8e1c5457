//! Bridges and widgets: what a room is connected to outside of Matrix.

use serde_json::Value;

use super::{
    draft::Draft,
    lenient::{at, str_at},
};

/// A connection to another network. The key of the state names it.
pub(super) fn bridge(draft: &mut Draft, key: &str, before: Option<&Value>, content: &Value) {
    let (shown, removed) = shown(before, content);
    let name = |part: &str| {
        str_at(shown, &[part, "displayname"]).or_else(|| str_at(shown, &[part, "id"])).map(str::to_owned)
    };
    let parts: Vec<String> =
        ["protocol", "network", "channel"].iter().filter_map(|part| name(part)).collect();
    let id = if key.is_empty() { str_at(shown, &["protocol", "id"]).unwrap_or_default() } else { key };
    draft.relate("bridge", id, "target");
    if let Some(bot) = str_at(shown, &["bridgebot"]) {
        draft.relate("user", bot, "bridge_bot");
    }
    creator(draft, str_at(shown, &["creator"]));
    tell(draft, "bridge", removed, &parts.join(", "));
}

/// A page that clients show beside the room.
pub(super) fn widget(draft: &mut Draft, key: &str, before: Option<&Value>, content: &Value) {
    let (shown, removed) = shown(before, content);
    let parts: Vec<&str> =
        ["name", "type", "url"].iter().filter_map(|field| str_at(shown, &[field])).collect();
    let id = if key.is_empty() { str_at(shown, &["id"]).unwrap_or_default() } else { key };
    draft.relate("widget", id, "target");
    creator(draft, str_at(shown, &["creatorUserId"]));
    tell(draft, "widget", removed, &parts.join(", "));
}

/// State cannot be deleted, only emptied: then what was there before is what is gone.
fn shown<'a>(before: Option<&'a Value>, content: &'a Value) -> (&'a Value, bool) {
    let says = |value: &Value| ["protocol", "type", "url"].iter().any(|field| at(value, &[field]).is_some());
    match before {
        Some(before) if says(before) && !says(content) => (before, true),
        _ => (content, false),
    }
}

fn creator(draft: &mut Draft, person: Option<&str>) {
    if let Some(person) = person {
        draft.person(person, "creator");
    }
}

fn tell(draft: &mut Draft, what: &str, removed: bool, words: &str) {
    let removed = if removed { " removed" } else { "" };
    draft.text(Some(format!("{what}{removed}: {words}")));
}
