//! Everything that is not state: messages with replies, threads and edits, reactions, polls,
//! calls, and types nobody knows yet.

use serde_json::Value;

use super::{
    Earlier, Event, author, body, call, diff,
    draft::Draft,
    earlier_event,
    lenient::{at, str_at},
    may_replace, poll,
    vocabulary::{
        CALL_MEMBER, EDIT_IGNORED, EDITED, EMPTIED, MESSAGES, MSGTYPES, OTHER_MESSAGE, POLL_ANSWERED,
        POLL_ENDED, REACTION, VOICE, find,
    },
};
use crate::{domain::record::Change, worker::vocabulary::Verb};

/// The event that this one claims to replace.
pub(super) fn replaced(event: &Event) -> Option<&str> {
    let relation = relation(event)?;
    (str_at(relation, &["rel_type"]) == Some("m.replace")).then(|| str_at(relation, &["event_id"])).flatten()
}

/// Where an event relates to: in the plaintext, or beside the ciphertext.
pub(super) fn relation(event: &Event) -> Option<&Value> {
    at(event.content(), &["m.relates_to"])
        .or_else(|| at(&event.outer.value, &["content", "m.relates_to"]))
        .filter(|relation| relation.is_object())
}

pub(super) fn convert(draft: &mut Draft, event: &Event, earlier: Option<&Earlier>) {
    // One that was taken back before it was captured came without content.
    let original = match earlier {
        Some(Earlier::Event(original)) if event.is_redacted() => Some(original),
        _ => None,
    };
    let verb = verb(event, original);
    draft.verb(verb);
    if let Some(id) = event.text(&["unsigned", "redacted_because", "event_id"]) {
        draft.relate("event", id, "redacted_by");
    }
    if verb == REACTION {
        reaction(draft, event, original);
        return;
    }
    let content = event.content();
    describe(draft, content);
    if let Some(target) = replaced(event) {
        edit(draft, event, target, earlier);
        return;
    }
    if let Some(relation) = relation(event) {
        relate(draft, relation);
    }
    if let Some(original) = original {
        redacted_before_capture(draft, event, original);
    }
    if event.is_redacted() {
        return;
    }
    match verb {
        POLL_ANSWERED => poll::answered(draft, content, earlier),
        POLL_ENDED => poll::ended(draft, content, earlier),
        CALL_MEMBER => call::membership(draft, None, content),
        verb if verb.action.starts_with("call.") => call::signalled(draft, content),
        _ => {}
    }
}

/// The verb for a type, and for some types of content.
fn verb(event: &Event, original: Option<&Value>) -> Verb {
    let kind = original.and_then(|original| str_at(original, &["type"])).or_else(|| event.kind());
    let content = original.and_then(|original| original.get("content")).unwrap_or_else(|| event.content());
    match kind.unwrap_or_default() {
        "m.room.encrypted" => EMPTIED,
        "m.room.message" if body::is_voice(content) => VOICE,
        "m.room.message" => find(MSGTYPES, str_at(content, &["msgtype"]).unwrap_or_default())
            .or_else(|| find(MESSAGES, "m.room.message"))
            .unwrap_or(OTHER_MESSAGE),
        kind => find(MESSAGES, kind).unwrap_or(OTHER_MESSAGE),
    }
}

/// Text, media and mentioned people of a content.
fn describe(draft: &mut Draft, content: &Value) {
    draft.text(body::text(content));
    draft.mentioned(content);
    for (path, role) in [
        (&["url"][..], "attached"),
        (&["file", "url"], "attached"),
        (&["info", "thumbnail_url"], "thumbnail"),
        (&["info", "thumbnail_file", "url"], "thumbnail"),
    ] {
        if let Some(uri) = str_at(content, path).filter(|uri| uri.starts_with("mxc://")) {
            draft.relate("media", uri, role);
        }
    }
}

fn relate(draft: &mut Draft, relation: &Value) {
    if let Some(id) = str_at(relation, &["event_id"]) {
        let role = match str_at(relation, &["rel_type"]) {
            Some("m.thread") => "thread",
            Some("m.reference") => "references",
            Some("m.annotation") => "annotates",
            _ => "relates_to",
        };
        draft.relate("event", id, role);
    }
    let fallback = at(relation, &["is_falling_back"]).and_then(Value::as_bool).unwrap_or(false);
    if let Some(id) = str_at(relation, &["m.in_reply_to", "event_id"]).filter(|_| !fallback) {
        draft.relate("event", id, "replies_to");
    }
}

fn reaction(draft: &mut Draft, event: &Event, original: Option<&Value>) {
    let original = original.and_then(|original| at(original, &["content", "m.relates_to"]));
    let Some(relation) = relation(event).or(original) else { return };
    let key = str_at(relation, &["key"]).unwrap_or_default();
    if let Some(id) = str_at(relation, &["event_id"]) {
        draft.relate("event", id, "reacts_to");
    }
    draft.text(Some(key.to_owned()));
    draft.changed([Change {
        path: diff::join(&diff::join("/reactions", key), event.sender().unwrap_or_default()),
        before: None,
        after: Some(Value::Bool(true)),
    }]);
}

/// Only the author can edit an event, and only one of the same type: everybody else's attempt is
/// shown by no client, and is recorded as what it is.
fn edit(draft: &mut Draft, event: &Event, target: &str, earlier: Option<&Earlier>) {
    let content = event.content();
    let new = at(content, &["m.new_content"]).filter(|new| new.is_object()).unwrap_or(content);
    describe(draft, new);
    if let Some(earlier) = earlier
        && !may_replace(event.sender(), event.kind(), earlier)
    {
        draft.verb(EDIT_IGNORED);
        draft.relate("event", target, "claims_to_replace");
        if let Some(author) = author(earlier) {
            draft.subject(author, "author");
        }
        return;
    }
    draft.verb(EDITED);
    draft.relate("event", target, "replaces");
    // A value before is one that was certainly there. Of a ciphertext nothing can be said.
    let known = earlier.filter(|earlier| !matches!(earlier, Earlier::Perhaps(_))).and_then(earlier_event);
    let readable = known.filter(|old| str_at(old, &["type"]) != Some("m.room.encrypted"));
    let before = readable.map(|old| current_content(&old));
    draft.changed(diff::diff("/content", before.as_ref(), Some(&essence(new))));
}

/// What an event said: of an edit its new content.
pub(super) fn current_content(event: &Value) -> Value {
    let content = event.get("content").unwrap_or(&Value::Null);
    let replaces = str_at(content, &["m.relates_to", "rel_type"]) == Some("m.replace");
    let new = at(content, &["m.new_content"]).filter(|new| replaces && new.is_object());
    essence(new.unwrap_or(content))
}

/// A content without what says how it relates to others.
fn essence(content: &Value) -> Value {
    let mut content = content.clone();
    if let Some(content) = content.as_object_mut() {
        content.remove("m.relates_to");
        content.remove("m.new_content");
    }
    content
}

/// It came without content because somebody redacted it first; the homeserver still has it.
fn redacted_before_capture(draft: &mut Draft, event: &Event, original: &Value) {
    if let Some(relation) = at(original, &["content", "m.relates_to"]).filter(|_| relation(event).is_none()) {
        relate(draft, relation);
    }
    let content = current_content(original);
    describe(draft, &content);
    draft.changed(diff::diff("/content", Some(&content), None));
}
