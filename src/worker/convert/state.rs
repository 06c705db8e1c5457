//! State events: room settings, permissions, spaces, policies, with values before and after.

use serde_json::{Map, Value};

use super::{
    Earlier, Event, call, diff,
    draft::Draft,
    earlier_event, integration,
    lenient::{at, str_at},
    location, member, power, room,
    vocabulary::{CALL_MEMBER, LOCATION_SHARING, OTHER_STATE, POLICY_RULE, STATES, find},
};

pub(super) fn convert(draft: &mut Draft, event: &Event, earlier: Option<&Earlier>) {
    let found = earlier.and_then(earlier_event).and_then(|old| old.get("content").cloned());
    // What was looked up is what was there before, or else this event's own content: see `needs`.
    let (before, original) = match event.unknown_previous() {
        Some(_) => (found.as_ref(), None),
        None => (event.previous(), found.as_ref().filter(|_| event.is_redacted())),
    };
    let content = original.unwrap_or_else(|| event.content());
    for (path, role) in [
        (&["unsigned", "replaces_state"][..], "replaces_state"),
        (&["unsigned", "redacted_because", "event_id"], "redacted_by"),
    ] {
        if let Some(id) = event.text(path) {
            draft.relate("event", id, role);
        }
    }
    let kind = event.kind().unwrap_or_default();
    if kind == "m.room.member" {
        member::convert(draft, event, before, content);
        return;
    }
    draft.verb(find(STATES, kind).unwrap_or(OTHER_STATE));
    draft.reason(str_at(content, &["reason"]));
    let key = event.state_key().unwrap_or_default();
    draft.relate("state", &format!("{kind}/{key}"), "target");
    let mut path = diff::join("", kind);
    if !key.is_empty() {
        path = diff::join(&path, key);
    }
    draft.changed(diff::diff(&path, before, Some(content)));
    // A state key that is a user id speaks of that user.
    if key.starts_with('@') {
        draft.subject(key, "target");
    }
    describe(draft, event, before, content);
}

/// What is particular to a type: relations, and the change in words.
fn describe(draft: &mut Draft, event: &Event, before: Option<&Value>, content: &Value) {
    let (kind, key) = (event.kind().unwrap_or_default(), event.state_key().unwrap_or_default());
    match kind {
        "m.room.create" => room::created(draft, event, content),
        "m.room.tombstone" => {
            if let Some(id) = str_at(content, &["replacement_room"]) {
                draft.relate("room", id, "successor");
            }
            draft.field(content, "body");
        }
        "m.room.avatar" => {
            if let Some(uri) = str_at(content, &["url"]).filter(|uri| uri.starts_with("mxc://")) {
                draft.relate("media", uri, "attached");
            }
        }
        "m.room.name" => draft.field(content, "name"),
        "m.room.topic" => draft.field(content, "topic"),
        "m.room.history_visibility" => draft.field(content, "history_visibility"),
        "m.room.guest_access" => draft.field(content, "guest_access"),
        "m.room.canonical_alias" | "m.room.aliases" => draft.lines(room::addresses(content)),
        "m.room.join_rules" => room::join_rules(draft, content),
        "m.room.pinned_events" => room::pinned(draft, before, content),
        "m.room.server_acl" => draft.lines(room::server_acl(before, content)),
        "m.room.encryption" => draft.text(room::encryption(before, content)),
        "m.room.third_party_invite" => draft.text(room::third_party_invite(before, content)),
        "m.room.power_levels" => {
            for person in at(content, &["users"]).and_then(Value::as_object).into_iter().flat_map(Map::keys) {
                draft.subject(person, "target");
            }
            draft.lines(power::words(before, content));
        }
        "m.space.child" | "m.space.parent" => {
            let (resource, role) =
                if kind == "m.space.child" { ("room", "child") } else { ("space", "parent") };
            draft.relate(resource, key, role);
            draft.text(Some(room::space(kind, key, before, content)));
        }
        "m.bridge" | "uk.half-shot.bridge" => integration::bridge(draft, key, before, content),
        "m.widget" | "im.vector.modular.widgets" => integration::widget(draft, key, before, content),
        kind => match find(STATES, kind) {
            Some(CALL_MEMBER) => call::membership(draft, before, content),
            Some(LOCATION_SHARING) => draft.text(Some(location::sharing_words(content))),
            Some(POLICY_RULE) => room::policy(draft, kind, before, content),
            _ => {}
        },
    }
}
