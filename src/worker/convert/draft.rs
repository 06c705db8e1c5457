//! The record while it is being filled.

use serde_json::Value;

use super::{
    Encryption, Event, Input, digest_id, lenient,
    vocabulary::{MALFORMED, OTHER_MESSAGE, UNDECRYPTABLE},
};
use crate::{
    domain::record::{
        Actor, Change, Context, RecordDraft, Relation, Subject, Trust, event_source_id, plaintext_source_id,
    },
    worker::vocabulary::Verb,
};

/// More mentioned people than this are not listed one by one.
const MAX_MENTIONED: usize = 100;
/// More lines than this are not told in a text.
const MAX_LINES: usize = 50;
/// More fields that cannot be read than this are not named one by one.
const MAX_UNREADABLE: usize = 50;

/// A record that always has its base and gets the rest from the converter of its type.
pub(super) struct Draft(RecordDraft);

impl Draft {
    pub(super) fn new(input: &Input<'_>, event: &Event) -> Self {
        let mut context = Context::default();
        let mut relations = vec![Relation::new("room", input.room_id, "in")];
        let mut plaintext_raw = None;
        let mut trust = Trust::Plain;
        let mut source = event.id.as_deref().map(event_source_id);
        if let Encryption::Decrypted(plain) | Encryption::DecryptedLater(plain) = &input.encryption {
            context.device_id = plain.device_id.map(str::to_owned);
            context.session_id = plain.session_id.map(str::to_owned);
            plaintext_raw = Some(plain.raw.to_owned());
            trust = plain.trust;
        }
        if let Some(id) = &event.id {
            let later = matches!(input.encryption, Encryption::DecryptedLater(_));
            if later {
                source = Some(plaintext_source_id(id));
            }
            relations.push(Relation::new("event", id, if later { "plaintext_of" } else { "self" }));
        }
        let sender = event.sender();
        Self(RecordDraft {
            source_id: source.unwrap_or_else(|| digest_id(input.room_id, input.raw)),
            category: OTHER_MESSAGE.category,
            action: OTHER_MESSAGE.action.to_owned(),
            occurred: event.occurred(),
            actor: sender.map_or(Actor::Unknown, Actor::matrix),
            on_behalf_of: None,
            context,
            relations,
            changes: Vec::new(),
            text: None,
            source_raw: Some(input.raw.to_owned()),
            plaintext_raw,
            trust,
            undecryptable_reason: None,
            subjects: sender.map(|sender| subject(sender, "actor")).into_iter().collect(),
        })
    }

    pub(super) fn verb(&mut self, verb: Verb) {
        self.0.category = verb.category;
        verb.action.clone_into(&mut self.0.action);
    }

    pub(super) fn reason(&mut self, reason: Option<&str>) {
        self.0.context.reason = reason.filter(|reason| !reason.is_empty()).map(str::to_owned);
    }

    pub(super) fn text(&mut self, text: Option<String>) {
        self.0.text = text.filter(|text| !text.is_empty());
    }

    /// One line for each change; of very many only the first ones.
    pub(super) fn lines(&mut self, lines: impl IntoIterator<Item = String>) {
        let lines: Vec<String> = lines.into_iter().take(MAX_LINES).collect();
        self.text(Some(lines.join("\n")));
    }

    /// The text of a field.
    pub(super) fn field(&mut self, content: &Value, name: &str) {
        self.text(lenient::str_at(content, &[name]).map(str::to_owned));
    }

    pub(super) fn relate(&mut self, kind: &str, id: &str, role: &str) {
        self.0.relations.push(Relation::new(kind, id, role));
    }

    pub(super) fn subject(&mut self, person: &str, role: &str) {
        self.0.subjects.push(subject(person, role));
    }

    /// Somebody who takes part: a resource of the record, and a person whose data it contains.
    pub(super) fn person(&mut self, id: &str, role: &str) {
        self.relate("user", id, role);
        self.subject(id, role);
    }

    pub(super) fn changed(&mut self, changes: impl IntoIterator<Item = Change>) {
        self.0.changes.extend(changes);
    }

    /// The people that a content mentions on purpose.
    pub(super) fn mentioned(&mut self, content: &Value) {
        let mentions = lenient::at(content, &["m.mentions", "user_ids"]);
        for person in mentions.and_then(Value::as_array).into_iter().flatten().take(MAX_MENTIONED) {
            if let Some(person) = person.as_str() {
                self.subject(person, "mentioned");
            }
        }
    }

    /// A ciphertext without its key.
    pub(super) fn undecryptable(&mut self, reason: &str) {
        self.verb(UNDECRYPTABLE);
        self.0.trust = Trust::Undecryptable;
        self.0.undecryptable_reason = Some(reason.to_owned());
    }

    /// An event that lacks what makes it one.
    pub(super) fn malformed(&mut self, event: &Event) {
        self.verb(MALFORMED);
        if event.sender().is_none() {
            self.0.actor = Actor::Unknown;
        }
    }

    /// The homeserver sent it in its sender's name because the bot asked for it.
    pub(super) fn acted_for(&mut self, bot: &str) {
        if let Actor::MatrixUser { id } = &self.0.actor
            && id != bot
        {
            self.0.on_behalf_of = Some(id.clone());
            for subject in &mut self.0.subjects {
                if subject.person == *id && subject.role == "actor" {
                    "on_behalf_of".clone_into(&mut subject.role);
                }
            }
            self.0.subjects.push(subject(bot, "actor"));
            self.0.actor = Actor::matrix(bot);
        }
    }

    pub(super) fn finish(mut self, event: &Event) -> RecordDraft {
        // Not in the reason: that is what a person wrote, who may write the same.
        for field in event.malformed().into_iter().take(MAX_UNREADABLE) {
            self.relate("field", field, "unreadable");
        }
        self.0.relations.sort();
        self.0.relations.dedup();
        self.0.subjects.sort();
        self.0.subjects.dedup();
        self.0
    }
}

fn subject(person: &str, role: &str) -> Subject {
    Subject { person: person.to_owned(), role: role.to_owned() }
}
