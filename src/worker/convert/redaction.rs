//! Redactions: what was taken away, from whom, by whom and why.

use serde_json::Value;

use super::{
    Earlier, Event, author, body, diff,
    draft::Draft,
    earlier_event,
    lenient::{at, str_at},
    message::current_content,
    vocabulary::{REACTION_REMOVED, REDACTED, REDACTIONS, STATE_REDACTED, find},
};
use crate::domain::record::Change;

/// Path of something that an event said, where nobody knows whether it was the last.
const KNOWN_CONTENT: &str = "/known_content";

pub(super) fn convert(draft: &mut Draft, event: &Event, earlier: Option<&Earlier>) {
    draft.verb(REDACTED);
    draft.reason(str_at(event.content(), &["reason"]));
    let Some(target) = event.redacts() else { return };
    draft.relate("event", target, "redacts");
    let Some(earlier) = earlier else { return };
    if let Some(author) = author(earlier) {
        draft.subject(author, "author");
    }
    let Some(old) = earlier_event(earlier) else { return };
    let kind = str_at(&old, &["type"]).unwrap_or_default();
    let state_key = str_at(&old, &["state_key"]);
    if let Some(state_key) = state_key {
        draft.verb(STATE_REDACTED);
        draft.relate("state", &format!("{kind}/{state_key}"), "target");
    } else {
        let verb = find(REDACTIONS, kind).unwrap_or(REDACTED);
        draft.verb(verb);
        if verb == REACTION_REMOVED {
            reaction(draft, &old, earlier);
            return;
        }
    }
    // Of a ciphertext nothing can be said.
    if kind != "m.room.encrypted" {
        let content = current_content(&old);
        draft.text(body::text(&content));
        // Nobody edits state.
        let is_doubtful = state_key.is_none() && matches!(earlier, Earlier::Perhaps(_));
        let path = if is_doubtful { KNOWN_CONTENT } else { "/content" };
        draft.changed(diff::diff(path, Some(&content), None));
    }
}

fn reaction(draft: &mut Draft, old: &Value, earlier: &Earlier) {
    let Some(relation) = at(old, &["content", "m.relates_to"]) else { return };
    if let Some(id) = str_at(relation, &["event_id"]) {
        draft.relate("event", id, "reacts_to");
    }
    let key = str_at(relation, &["key"]).unwrap_or_default();
    draft.text(Some(key.to_owned()));
    draft.changed([Change {
        path: diff::join(&diff::join("/reactions", key), author(earlier).unwrap_or_default()),
        before: Some(Value::Bool(true)),
        after: None,
    }]);
}
