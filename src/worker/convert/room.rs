//! Settings of rooms and spaces in words.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    Event,
    draft::Draft,
    lenient::{at, str_at},
};
use crate::domain::record::Change;

/// More names than this are counted, not told; more resources than this are not related one by one.
const MAX_NAMES: usize = 50;
/// From this version on a room can have several creators, above all power levels.
const MANY_CREATORS: u32 = 12;
/// From this version on the creator is the sender of the event that creates the room.
const SENDER_CREATES: u32 = 11;

/// Who made the room, and which one.
pub(super) fn created(draft: &mut Draft, event: &Event, content: &Value) {
    let version = str_at(content, &["room_version"]).unwrap_or("1");
    let creators = creators(event.sender().unwrap_or_default(), version, content);
    for person in &creators {
        draft.person(person, "creator");
    }
    let mut lines = vec![format!("room version {version}"), format!("created by {}", named(&creators))];
    match str_at(content, &["type"]) {
        Some("m.space") => lines.push("a space".to_owned()),
        Some(kind) => lines.push(format!("of type {kind}")),
        None => {}
    }
    if at(content, &["m.federate"]).and_then(Value::as_bool) == Some(false) {
        lines.push("closed to other homeservers".to_owned());
    }
    if let Some(id) = str_at(content, &["predecessor", "room_id"]) {
        draft.relate("room", id, "predecessor");
        lines.push(format!("replaces {id}"));
    }
    draft.lines(lines);
    draft.changed([Change { path: "/room/creators".to_owned(), before: None, after: Some(creators.into()) }]);
}

/// Versions that are no numbers are experiments with what comes next.
fn creators<'a>(sender: &'a str, version: &str, content: &'a Value) -> Vec<&'a str> {
    let version = version.parse::<u32>().unwrap_or(u32::MAX);
    if version < SENDER_CREATES {
        return vec![str_at(content, &["creator"]).unwrap_or(sender)];
    }
    let mut creators = vec![sender];
    if version >= MANY_CREATORS {
        for person in strings(Some(content), "additional_creators").take(MAX_NAMES) {
            if !creators.contains(&person) {
                creators.push(person);
            }
        }
    }
    creators
}

/// Messages that were pinned or are no longer.
pub(super) fn pinned(draft: &mut Draft, before: Option<&Value>, after: &Value) {
    let (added, removed) = moved(before, after, "pinned");
    for (role, events) in [("pinned", &added), ("unpinned", &removed)] {
        for event in events.iter().take(MAX_NAMES) {
            draft.relate("event", event, role);
        }
    }
    draft.lines(told("pinned", &added).into_iter().chain(told("unpinned", &removed)));
}

/// Which homeservers may take part.
pub(super) fn server_acl(before: Option<&Value>, after: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    for (field, now, no_longer) in
        [("deny", "denied now", "no longer denied"), ("allow", "allowed now", "no longer allowed")]
    {
        let (added, removed) = moved(before, after, field);
        lines.extend(told(now, &added));
        lines.extend(told(no_longer, &removed));
    }
    let literals = |value: &Value| at(value, &["allow_ip_literals"]).and_then(Value::as_bool).unwrap_or(true);
    let (was, is) = (before.is_none_or(literals), literals(after));
    if was != is {
        lines.push(format!("IP addresses instead of names: {} now", if is { "allowed" } else { "denied" }));
    }
    lines
}

/// Who may join.
pub(super) fn join_rules(draft: &mut Draft, after: &Value) {
    let rule = str_at(after, &["join_rule"]).map(str::to_owned);
    let allow = at(after, &["allow"]).and_then(Value::as_array);
    let rooms: Vec<&str> =
        allow.into_iter().flatten().filter_map(|one| str_at(one, &["room_id"])).take(MAX_NAMES).collect();
    for room in &rooms {
        draft.relate("room", room, "admits");
    }
    draft.lines(rule.into_iter().chain(told("open to members of", &rooms)));
}

/// Encryption cannot be switched off again; the setting can be changed all the same.
pub(super) fn encryption(before: Option<&Value>, after: &Value) -> Option<String> {
    let algorithm = |value| str_at(value, &["algorithm"]);
    match (before.and_then(algorithm), algorithm(after)) {
        (None, Some(is)) => Some(format!("encryption switched on: {is}")),
        (Some(was), Some(is)) if was != is => Some(format!("encryption changed from {was} to {is}")),
        (_, Some(is)) => Some(format!("encryption settings changed: {is}")),
        (Some(was), None) => Some(format!("encryption setting removed: {was}; the room stays encrypted")),
        (None, None) => None,
    }
}

/// An invitation by mail or phone.
pub(super) fn third_party_invite(before: Option<&Value>, after: &Value) -> Option<String> {
    let name = |value| str_at(value, &["display_name"]);
    match (before.and_then(name), name(after)) {
        (_, Some(who)) => Some(format!("invited by mail or phone: {who}")),
        (Some(who), None) => Some(format!("invitation withdrawn: {who}")),
        (None, None) => None,
    }
}

/// All addresses of a room.
pub(super) fn addresses(after: &Value) -> Vec<String> {
    let main = str_at(after, &["alias"]).into_iter();
    let more = strings(Some(after), "alt_aliases").chain(strings(Some(after), "aliases"));
    main.chain(more.take(MAX_NAMES)).map(str::to_owned).collect()
}

/// A room of a space, or the space of a room. It counts while servers are named to reach it by.
pub(super) fn space(kind: &str, key: &str, before: Option<&Value>, after: &Value) -> String {
    let counts = |value: &Value| strings(Some(value), "via").next().is_some();
    let what = if kind == "m.space.child" { "room of the space" } else { "space of the room" };
    let verb = match (before.is_some_and(counts), counts(after)) {
        (false, true) => "added",
        (true, true) => "changed",
        (_, false) => "removed",
    };
    format!("{what} {verb}: {key}")
}

/// An entry of a list of those who are not wanted.
pub(super) fn policy(draft: &mut Draft, kind: &str, before: Option<&Value>, after: &Value) {
    let entity = |value| str_at(value, &["entity"]);
    let Some(whom) = entity(after).or_else(|| before.and_then(entity)) else { return };
    let words = match (entity(after), str_at(after, &["recommendation"])) {
        (Some(_), Some(what)) => format!("{what} {whom}"),
        (Some(_), None) => whom.to_owned(),
        (None, _) => format!("rule removed: {whom}"),
    };
    draft.text(Some(words));
    // A pattern stands for many.
    if whom.contains(['*', '?']) {
        return;
    }
    match kind.rsplit('.').next() {
        Some("user") => {
            draft.person(whom, "target");
        }
        Some("room") => draft.relate("room", whom, "target"),
        Some("server") => draft.relate("server", whom, "target"),
        _ => {}
    }
}

fn strings<'a>(value: Option<&'a Value>, field: &str) -> impl Iterator<Item = &'a str> + use<'a> {
    let list = value.and_then(|value| at(value, &[field])).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str)
}

/// What came to a list of texts, and what went.
fn moved<'a>(before: Option<&'a Value>, after: &'a Value, field: &str) -> (Vec<&'a str>, Vec<&'a str>) {
    let old: BTreeSet<&str> = strings(before, field).collect();
    let new: BTreeSet<&str> = strings(Some(after), field).collect();
    (new.difference(&old).copied().collect(), old.difference(&new).copied().collect())
}

fn told(what: &str, names: &[&str]) -> Option<String> {
    (!names.is_empty()).then(|| format!("{what}: {}", named(names)))
}

fn named(names: &[&str]) -> String {
    let more = names.len().saturating_sub(MAX_NAMES);
    let listed = names[..names.len() - more].join(", ");
    if more == 0 { listed } else { format!("{listed} and {more} more") }
}
