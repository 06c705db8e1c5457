//! State events: room settings, permissions, spaces, policies, with values before and after.

use serde_json::{Map, Value};

use super::{
    Earlier, Event, diff,
    draft::Draft,
    earlier_event,
    lenient::{at, str_at},
    member,
};
use crate::domain::record::Category;

/// More people than this are not told one by one in a text.
const MAX_LINES: usize = 50;

pub(super) fn convert(draft: &mut Draft, event: &Event, earlier: Option<&Earlier>) {
    let looked_up = earlier.and_then(earlier_event).and_then(|old| old.get("content").cloned());
    let before = event.previous().or(looked_up.as_ref());
    let kind = event.kind().unwrap_or_default();
    if kind == "m.room.member" {
        member::convert(draft, event, before);
        return;
    }
    let content = event.content();
    let (category, action) = action(kind);
    draft.action(category, action);
    draft.reason(str_at(content, &["reason"]));
    let key = event.state_key().unwrap_or_default();
    draft.relate("state", &format!("{kind}/{key}"), "target");
    let mut path = diff::join("", kind);
    if !key.is_empty() {
        path = diff::join(&path, key);
    }
    draft.changed(diff::diff(&path, before, Some(content)));
    draft.text(text(kind, before, content));
    relate(draft, kind, key, content);
}

fn action(kind: &str) -> (Category, &'static str) {
    use Category::{ResourceChange, SystemChange, UserActivity};
    match kind {
        "m.room.create" => (ResourceChange, "room.created"),
        "m.room.tombstone" => (ResourceChange, "room.upgraded"),
        "m.room.name" => (ResourceChange, "room.name.changed"),
        "m.room.topic" => (ResourceChange, "room.topic.changed"),
        "m.room.avatar" => (ResourceChange, "room.avatar.changed"),
        "m.room.canonical_alias" | "m.room.aliases" => (ResourceChange, "room.alias.changed"),
        "m.room.pinned_events" => (ResourceChange, "room.pinned.changed"),
        "m.room.join_rules" => (ResourceChange, "room.join_rules.changed"),
        "m.room.history_visibility" => (ResourceChange, "room.history_visibility.changed"),
        "m.room.guest_access" => (ResourceChange, "room.guest_access.changed"),
        "m.room.encryption" => (ResourceChange, "room.encryption.changed"),
        "m.room.power_levels" => (UserActivity, "room.power_levels.changed"),
        "m.room.third_party_invite" => (UserActivity, "room.third_party_invite.changed"),
        "m.room.server_acl" => (SystemChange, "room.server_acl.changed"),
        "m.room.retention" => (SystemChange, "room.retention.changed"),
        "m.space.child" => (ResourceChange, "space.child.changed"),
        "m.space.parent" => (ResourceChange, "space.parent.changed"),
        "im.vector.modular.widgets" | "m.widget" => (ResourceChange, "room.widget.changed"),
        "io.element.functional_members" => (ResourceChange, "room.functional_members.changed"),
        "m.call.member" | "org.matrix.msc3401.call.member" => (UserActivity, "call.member.changed"),
        kind if kind.starts_with("m.policy.rule.") => (SystemChange, "policy.rule.changed"),
        _ => (ResourceChange, "room.state.changed"),
    }
}

fn relate(draft: &mut Draft, kind: &str, key: &str, content: &Value) {
    match kind {
        "m.room.create" => {
            if let Some(id) = str_at(content, &["predecessor", "room_id"]) {
                draft.relate("room", id, "predecessor");
            }
        }
        "m.room.tombstone" => {
            if let Some(id) = str_at(content, &["replacement_room"]) {
                draft.relate("room", id, "successor");
            }
        }
        "m.space.child" => draft.relate("room", key, "child"),
        "m.space.parent" => draft.relate("space", key, "parent"),
        "m.room.avatar" => {
            if let Some(uri) = str_at(content, &["url"]).filter(|uri| uri.starts_with("mxc://")) {
                draft.relate("media", uri, "attached");
            }
        }
        // A state key that is a user id speaks of that user.
        _ if key.starts_with('@') => draft.subject(key, "target"),
        _ => {}
    }
    if kind == "m.room.power_levels" {
        for person in at(content, &["users"]).and_then(Value::as_object).into_iter().flat_map(Map::keys) {
            draft.subject(person, "target");
        }
    }
}

fn text(kind: &str, before: Option<&Value>, after: &Value) -> Option<String> {
    let field = match kind {
        "m.room.power_levels" => return power_text(before, after),
        "m.room.topic" => "topic",
        "m.room.canonical_alias" => "alias",
        "m.room.join_rules" => "join_rule",
        "m.room.history_visibility" => "history_visibility",
        "m.room.guest_access" => "guest_access",
        "m.room.encryption" => "algorithm",
        "m.room.tombstone" => "body",
        "m.room.name" | "im.vector.modular.widgets" | "m.widget" => "name",
        kind if kind.starts_with("m.policy.rule.") => "entity",
        _ => return None,
    };
    str_at(after, &[field]).map(str::to_owned)
}

/// Who gained or lost what, one line each.
fn power_text(before: Option<&Value>, after: &Value) -> Option<String> {
    let users = |value: Option<&Value>| {
        value.and_then(|value| at(value, &["users"])).and_then(Value::as_object).cloned().unwrap_or_default()
    };
    let (old, new) = (users(before), users(Some(after)));
    let default = |value: Option<&Value>| {
        value.and_then(|value| at(value, &["users_default"])).cloned().unwrap_or(Value::from(0))
    };
    let (old_default, new_default) = (default(before), default(Some(after)));
    let people = old.keys().chain(new.keys().filter(|person| !old.contains_key(*person)));
    let lines: Vec<String> = people
        .filter_map(|person| {
            let was = old.get(person).unwrap_or(&old_default);
            let is = new.get(person).unwrap_or(&new_default);
            (was != is).then(|| format!("{person}: {was} → {is}"))
        })
        .take(MAX_LINES)
        .collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}
