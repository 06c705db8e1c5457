//! Redactions: what was taken away, from whom, by whom and why.

use serde_json::Value;

use super::{
    Earlier, Event, author, diff,
    draft::Draft,
    earlier_event,
    lenient::{at, str_at},
    message::current_content,
};
use crate::domain::record::{Category, Change};

pub(super) fn convert(draft: &mut Draft, event: &Event, earlier: Option<&Earlier>) {
    draft.action(Category::UserActivity, "event.redacted");
    draft.reason(str_at(event.content(), &["reason"]));
    let Some(target) = event.redacts() else { return };
    draft.relate("event", target, "redacts");
    let Some(earlier) = earlier else { return };
    if let Some(author) = author(earlier) {
        draft.subject(author, "author");
    }
    let Some(old) = earlier_event(earlier) else { return };
    match str_at(&old, &["type"]).unwrap_or_default() {
        "m.reaction" => reaction(draft, &old, earlier),
        "m.room.encrypted" => draft.action(Category::UserActivity, "message.redacted"),
        kind => {
            if let Some(state_key) = str_at(&old, &["state_key"]) {
                draft.action(Category::ResourceChange, "room.state.redacted");
                draft.relate("state", &format!("{kind}/{state_key}"), "target");
            } else if kind == "m.room.message" {
                draft.action(Category::UserActivity, "message.redacted");
            }
            let content = current_content(&old);
            draft.text(str_at(&content, &["body"]).map(str::to_owned));
            draft.changed(diff::diff("/content", Some(&content), None));
        }
    }
}

fn reaction(draft: &mut Draft, old: &Value, earlier: &Earlier) {
    draft.action(Category::UserActivity, "reaction.removed");
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
