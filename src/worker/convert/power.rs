//! Power levels in words: who gained and lost power, and what needs how much.

use serde_json::{Map, Value};

use super::lenient::at;

/// What needs power: where it stands, in words, and its default.
const NEEDS: [(&[&str], &str, i64); 7] = [
    (&["ban"], "banning people", 50),
    (&["kick"], "removing people", 50),
    (&["invite"], "inviting people", 0),
    (&["redact"], "removing messages of others", 50),
    (&["state_default"], "changing settings", 50),
    (&["events_default"], "sending messages", 0),
    (&["notifications", "room"], "notifying everybody", 50),
];

/// What changed, one line each.
pub(super) fn words(before: Option<&Value>, after: &Value) -> Vec<String> {
    let mut lines = people(before, after);
    for (path, what, default) in NEEDS {
        let was = before.and_then(|before| level(at(before, path)?)).unwrap_or(default);
        let is = at(after, path).and_then(level).unwrap_or(default);
        if was != is {
            lines.push(need(what, before.is_some().then(|| was.to_string()), &is.to_string()));
        }
    }
    lines.extend(events(before, after));
    lines
}

fn need(what: &str, was: Option<String>, is: &str) -> String {
    match was {
        Some(was) => format!("{what} needs {is}, needed {was}"),
        None => format!("{what} needs {is}"),
    }
}

fn people(before: Option<&Value>, after: &Value) -> Vec<String> {
    let (old, new) = (object(before, "users"), object(Some(after), "users"));
    let default =
        |value: Option<&Value>| value.and_then(|value| level(at(value, &["users_default"])?)).unwrap_or(0);
    let (old_default, new_default) = (default(before), default(Some(after)));
    let gain = |who: &str, was: i64, is: i64| {
        let verb = if is > was { "gained" } else { "lost" };
        (was != is).then(|| format!("{who} {verb} power: {was} → {is}"))
    };
    let known = |people: Option<&Map<String, Value>>, person: &str, default: i64| {
        people.and_then(|people| level(people.get(person)?)).unwrap_or(default)
    };
    let each = keys(old, new)
        .filter_map(|person| gain(person, known(old, person, old_default), known(new, person, new_default)));
    each.chain(gain("everybody else", old_default, new_default)).collect()
}

/// Types of events that need a level of their own.
fn events(before: Option<&Value>, after: &Value) -> Vec<String> {
    let (old, new) = (object(before, "events"), object(Some(after), "events"));
    let told = |types: Option<&Map<String, Value>>, kind: &str| {
        let level = types.and_then(|types| level(types.get(kind)?));
        level.map_or_else(|| "the default".to_owned(), |level| level.to_string())
    };
    let changed = keys(old, new).filter_map(|kind| {
        let (was, is) = (told(old, kind), told(new, kind));
        (was != is).then(|| need(kind, before.is_some().then_some(was), &is))
    });
    changed.collect()
}

fn object<'a>(value: Option<&'a Value>, field: &str) -> Option<&'a Map<String, Value>> {
    at(value?, &[field])?.as_object()
}

/// The keys of both.
fn keys<'a>(
    old: Option<&'a Map<String, Value>>,
    new: Option<&'a Map<String, Value>>,
) -> impl Iterator<Item = &'a str> {
    let added = new.into_iter().flat_map(Map::keys);
    let added = added.filter(move |key| !old.is_some_and(|old| old.contains_key(*key)));
    old.into_iter().flat_map(Map::keys).chain(added).map(String::as_str)
}

/// Rooms of old versions have levels that are texts.
fn level(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.trim().parse().ok())
}
