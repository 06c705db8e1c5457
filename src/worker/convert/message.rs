//! Everything that is not state: messages with replies, threads and edits, reactions, polls,
//! calls, and types nobody knows yet.

use serde_json::Value;

use super::{
    Earlier, Event, author, diff,
    draft::Draft,
    earlier_event,
    lenient::{at, str_at},
};
use crate::domain::record::{Category, Change};

/// The event that this one claims to replace.
pub(super) fn replaced(event: &Event) -> Option<&str> {
    let relation = relation(event)?;
    (str_at(relation, &["rel_type"]) == Some("m.replace")).then(|| str_at(relation, &["event_id"])).flatten()
}

/// Where an event relates to: in the plaintext, or beside the ciphertext.
fn relation(event: &Event) -> Option<&Value> {
    at(event.content(), &["m.relates_to"])
        .or_else(|| at(&event.outer.value, &["content", "m.relates_to"]))
        .filter(|relation| relation.is_object())
}

pub(super) fn convert(draft: &mut Draft, event: &Event, earlier: Option<&Earlier>) {
    let content = event.content();
    draft.action(Category::UserActivity, action(event));
    if event.kind() == Some("m.reaction") {
        reaction(draft, event, earlier);
        return;
    }
    describe(draft, content);
    if let Some(target) = replaced(event) {
        edit(draft, event, target, earlier);
    } else {
        relate(draft, event);
        if event.is_redacted() {
            redacted_before_capture(draft, event, earlier);
        }
    }
}

/// The verb for a type; closed, so that nobody can invent actions by sending events.
fn action(event: &Event) -> &'static str {
    match event.kind().unwrap_or_default() {
        "m.room.message" => "message.sent",
        "m.sticker" => "message.sticker_sent",
        "m.room.encrypted" => "message.undecryptable",
        "m.reaction" => "reaction.added",
        "m.poll.start" | "org.matrix.msc3381.poll.start" => "poll.started",
        "m.poll.response" | "org.matrix.msc3381.poll.response" => "poll.answered",
        "m.poll.end" | "org.matrix.msc3381.poll.end" => "poll.ended",
        "m.call.invite" => "call.invited",
        "m.call.answer" => "call.answered",
        "m.call.hangup" | "m.call.reject" => "call.ended",
        "m.call.notify" | "m.rtc.notification" | "org.matrix.msc4075.call.notify" => "call.announced",
        "m.beacon" | "org.matrix.msc3672.beacon" => "location.updated",
        kind if kind.starts_with("m.key.verification.") => "verification.step",
        _ => "event.sent",
    }
}

/// Text, media and mentioned people of a content.
fn describe(draft: &mut Draft, content: &Value) {
    draft.text(text(content));
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

/// What a person would search for.
fn text(content: &Value) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    let body = str_at(content, &["body"]).or_else(|| str_at(content, &["formatted_body"]));
    parts.extend(body.map(|body| without_reply_fallback(content, body)));
    for path in [
        &["filename"][..],
        &["geo_uri"],
        &["m.text"],
        &["org.matrix.msc1767.text"],
        &["m.poll", "question", "body"],
        &["org.matrix.msc3381.poll.start", "question", "body"],
        &["org.matrix.msc3381.poll.start", "question", "org.matrix.msc1767.text"],
    ] {
        parts.extend(str_at(content, path));
    }
    let answers = at(content, &["org.matrix.msc3381.poll.start", "answers"])
        .or_else(|| at(content, &["m.poll", "answers"]))
        .and_then(Value::as_array);
    for answer in answers.into_iter().flatten().take(50) {
        parts.extend(str_at(answer, &["org.matrix.msc1767.text"]).or_else(|| str_at(answer, &["m.text"])));
    }
    parts.dedup();
    (!parts.is_empty()).then(|| parts.join("\n"))
}

/// Older clients repeat what they reply to in lines that start with `> `: that is not what this
/// person wrote.
fn without_reply_fallback<'a>(content: &Value, body: &'a str) -> &'a str {
    if at(content, &["m.relates_to", "m.in_reply_to"]).is_none() || !body.starts_with("> ") {
        return body;
    }
    let mut rest = body;
    while let Some((line, after)) = rest.split_once('\n') {
        if !line.starts_with("> ") && line != ">" {
            return if line.is_empty() { after } else { rest };
        }
        rest = after;
    }
    if rest.starts_with("> ") { body } else { rest }
}

fn relate(draft: &mut Draft, event: &Event) {
    let Some(relation) = relation(event) else { return };
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

fn reaction(draft: &mut Draft, event: &Event, earlier: Option<&Earlier>) {
    // One that was taken back before it was captured came without content.
    let original = match earlier {
        Some(Earlier::Event(original)) if event.is_redacted() => at(original, &["content", "m.relates_to"]),
        _ => None,
    };
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
        && !may_replace(event, earlier)
    {
        draft.action(Category::UserActivity, "message.edit_ignored");
        draft.relate("event", target, "claims_to_replace");
        if let Some(author) = author(earlier) {
            draft.subject(author, "author");
        }
        return;
    }
    draft.action(Category::UserActivity, "message.edited");
    draft.relate("event", target, "replaces");
    let before = earlier.and_then(earlier_event).map(|old| current_content(&old));
    draft.changed(diff::diff("/content", before.as_ref(), Some(&essence(new))));
}

fn may_replace(event: &Event, earlier: &Earlier) -> bool {
    let same_author = author(earlier).is_none_or(|author| Some(author) == event.sender());
    let old = earlier_event(earlier);
    let old_kind = old.as_ref().and_then(|old| str_at(old, &["type"]));
    let comparable = |kind: &&str| *kind != "m.room.encrypted";
    let same_kind = match (old_kind.filter(comparable), event.kind().filter(comparable)) {
        (Some(old), Some(new)) => old == new,
        _ => true,
    };
    same_author && same_kind
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

/// It came without content because somebody redacted it first; the homeserver may still have it.
fn redacted_before_capture(draft: &mut Draft, event: &Event, earlier: Option<&Earlier>) {
    if let Some(id) = event.text(&["unsigned", "redacted_because", "event_id"]) {
        draft.relate("event", id, "redacted_by");
    }
    if let Some(Earlier::Event(original)) = earlier {
        let content = current_content(original);
        describe(draft, &content);
        draft.changed(diff::diff("/content", Some(&content), None));
    }
}
