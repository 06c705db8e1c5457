//! State that is in force again: servers disagreed, the room's state was resolved anew, and no event says so.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{
    Earlier, Encryption, Event, Input, draft::Draft, earlier_event, lenient, sender, state,
    vocabulary::STATE_RESET,
};
use crate::domain::record::{Actor, Context, Occurred, RecordDraft};

/// The part that the event plays which is in force again.
const RESTORED: &str = "restored";

/// The state event that is in force according to a record.
pub(crate) fn restored(record: &RecordDraft) -> Option<&str> {
    let again =
        record.relations.iter().find(|relation| relation.kind == "event" && relation.role == RESTORED);
    again.map(|relation| relation.id.as_str()).or_else(|| record.event_id())
}

/// The record of a state event that is in force in place of what `known` says. It is named by the event and by the
/// record that it ends: however often it is told it is the same one, and the next time it is another one.
pub(crate) fn reset(room_id: &str, raw: &str, known: &RecordDraft, occurred: Occurred) -> RecordDraft {
    let input = Input { room_id, raw, encryption: Encryption::None, caused_by: None };
    let mut event = Event::read(&input);
    replaces(&mut event.outer.value, known);
    let mut draft = Draft::new(&input, &event);
    state::convert(&mut draft, &event, None);
    draft.verb(STATE_RESET);
    if let Some(author) = sender(known) {
        draft.subject(author, "author");
    }
    for author in known.subjects.iter().filter(|subject| subject.role == "author") {
        draft.subject(&author.person, "author");
    }
    let mut record = draft.finish(&event);
    let ends = hex::encode(Sha256::digest(&known.source_id));
    record.source_id = format!("matrix:reset:{}:{ends}", event.id.as_deref().unwrap_or_default());
    record.occurred = occurred;
    // Who sent it did so long ago, and for a reason of that time.
    record.actor = Actor::Unknown;
    record.context = Context::default();
    for relation in &mut record.relations {
        if relation.role == "self" {
            RESTORED.clone_into(&mut relation.role);
        }
    }
    for subject in &mut record.subjects {
        if subject.role == "actor" {
            "author".clone_into(&mut subject.role);
        }
    }
    record.relations.sort();
    record.subjects.sort();
    record.subjects.dedup();
    record
}

/// Has an event say that it took the place of what the trail says was in force.
fn replaces(event: &mut Value, known: &RecordDraft) {
    let before = earlier_event(&Earlier::Record(Box::new(known.clone())));
    let before = before.as_ref().and_then(|before| lenient::at(before, &["content"]));
    let Some(fields) = event.as_object_mut() else { return };
    let unsigned = fields.entry("unsigned").or_insert_with(|| json!({}));
    if !unsigned.is_object() {
        *unsigned = json!({});
    }
    unsigned["prev_content"] = before.cloned().unwrap_or_default();
    unsigned["replaces_state"] = restored(known).into();
}
