//! A Matrix event becomes a record. Pure: what has to be looked up is asked for by [`needs`] and
//! handed in as [`Earlier`]. No input fails: what cannot be understood is recorded as it came.

mod body;
mod call;
mod draft;
mod integration;
mod lenient;
mod location;
mod member;
mod message;
mod poll;
mod power;
#[cfg(test)]
mod properties;
mod redaction;
mod reset;
mod room;
mod state;
#[cfg(test)]
mod tests;
pub(crate) mod vocabulary;

use serde_json::Value;
use sha2::{Digest, Sha256};

pub(crate) use self::reset::{reset, restored};
use self::{
    draft::Draft,
    lenient::{Fields, str_at},
};
pub(crate) use crate::domain::diff::{self, diff};
use crate::domain::record::{Actor, Occurred, RecordDraft, Trust};

/// The plaintext of an encrypted event.
#[derive(Debug, Clone, PartialEq)]
pub struct Plaintext<'a> {
    /// The JSON text that the ciphertext contained, with the event's own fields around it.
    pub raw: &'a str,
    /// How far the sender's claim can be trusted.
    pub trust: Trust,
    /// The device that sent it, as far as that is known.
    pub device_id: Option<&'a str>,
    /// The Megolm session.
    pub session_id: Option<&'a str>,
}

/// What became of an event's encryption.
#[derive(Debug, Clone, PartialEq)]
pub enum Encryption<'a> {
    /// It has none.
    None,
    /// It was decrypted along with its arrival.
    Decrypted(Plaintext<'a>),
    /// Its ciphertext was recorded before; this is the plaintext now that the key is here.
    DecryptedLater(Plaintext<'a>),
    /// It could not be decrypted, for a reason from the closed set of
    /// [`RecordDraft::undecryptable_reason`].
    Failed(&'a str),
}

/// An event and what is known around it.
#[derive(Debug, Clone, PartialEq)]
pub struct Input<'a> {
    /// Its room; sync does not repeat it in the event.
    pub room_id: &'a str,
    /// Its JSON text as received; for an encrypted event the ciphertext event.
    pub raw: &'a str,
    /// Its encryption.
    pub encryption: Encryption<'a>,
    /// The bot at whose request the homeserver sent the event in its sender's name.
    pub caused_by: Option<&'a str>,
}

/// What [`convert`] would like to know of an earlier event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Need {
    /// What an event said last: its newest edit, or itself.
    Newest {
        /// The event.
        of: String,
        /// When it was redacted, answered or, as state, replaced.
        at: Occurred,
    },
    /// What an event said before one of its edits: the edit before that one, or itself.
    Before {
        /// The event.
        of: String,
        /// When it was edited.
        at: Occurred,
        /// The edit.
        edit: String,
    },
    /// The original content of an event that came already redacted: this very event.
    Original(String),
}

/// The answer to a [`Need`].
#[derive(Debug, Clone, PartialEq)]
pub enum Earlier {
    /// A record of it, or of its newest edit.
    Record(Box<RecordDraft>),
    /// The event as the homeserver keeps it, from its admin API, or an edit of it.
    Event(Value),
    /// Something that it said; whether that was the last is not known.
    Perhaps(Box<Earlier>),
}

/// What has to be looked up for this event before it is converted.
pub fn needs(input: &Input<'_>) -> Option<Need> {
    if matches!(input.encryption, Encryption::Failed(_)) {
        // It says nothing that could be compared.
        return None;
    }
    let event = Event::read(input);
    let at = event.occurred();
    let newest = |of: &str| Need::Newest { of: of.to_owned(), at };
    if let Some(target) = event.redacts() {
        return Some(newest(target));
    }
    if let Some(target) = message::replaced(&event) {
        let edit = event.id.clone()?;
        return Some(Need::Before { of: target.to_owned(), at, edit });
    }
    if let Some(previous) = event.unknown_previous() {
        return Some(newest(previous));
    }
    if event.is_redacted() {
        return event.id.clone().map(Need::Original);
    }
    poll::asked_by(&event).map(newest)
}

/// Makes the record. Total: every input has one.
pub fn convert(input: &Input<'_>, earlier: Option<&Earlier>) -> RecordDraft {
    let event = Event::read(input);
    let mut draft = Draft::new(input, &event);
    if event.id.is_none() || event.sender().is_none() || event.kind().is_none() || event.is_nonsense() {
        draft.malformed(&event);
    } else if let Encryption::Failed(reason) = input.encryption {
        draft.undecryptable(reason);
    } else if event.is_ciphertext() {
        // One that has nothing to decrypt, or one inside another one.
        draft.undecryptable("corrupt");
    } else if event.is_state() {
        state::convert(&mut draft, &event, earlier);
    } else if event.kind() == Some("m.room.redaction") {
        redaction::convert(&mut draft, &event, earlier);
    } else {
        message::convert(&mut draft, &event, earlier);
    }
    if let Some(bot) = input.caused_by {
        draft.acted_for(bot);
    }
    draft.finish(&event)
}

/// The event's fields as far as they can be read, whatever else is in it.
pub(crate) fn read(raw: &str) -> Value {
    lenient::parse(raw).value
}

/// An event taken apart.
struct Event {
    id: Option<String>,
    /// The event as received, for what surrounds the content.
    outer: Fields,
    /// The decrypted event, if there is one.
    inner: Option<Fields>,
}

impl Event {
    fn read(input: &Input<'_>) -> Self {
        let outer = lenient::parse(input.raw);
        let inner = match &input.encryption {
            Encryption::Decrypted(plain) | Encryption::DecryptedLater(plain) => {
                Some(lenient::parse(plain.raw))
            }
            Encryption::None | Encryption::Failed(_) => None,
        };
        let id = |fields: &Fields| str_at(&fields.value, &["event_id"]).map(str::to_owned);
        let id = id(&outer).or_else(|| inner.as_ref().and_then(id)).filter(|id| !id.is_empty());
        Self { id, outer, inner }
    }

    /// The field of the event as received.
    fn text(&self, path: &[&str]) -> Option<&str> {
        str_at(&self.outer.value, path)
    }

    fn sender(&self) -> Option<&str> {
        self.text(&["sender"])
    }

    /// The type, of the plaintext if there is one.
    fn kind(&self) -> Option<&str> {
        self.inner.as_ref().and_then(|inner| str_at(&inner.value, &["type"])).or_else(|| self.text(&["type"]))
    }

    /// The content, of the plaintext if there is one.
    fn content(&self) -> &Value {
        let value = self.inner.as_ref().map_or(&self.outer.value, |inner| &inner.value);
        value.get("content").unwrap_or(&Value::Null)
    }

    fn state_key(&self) -> Option<&str> {
        self.text(&["state_key"])
    }

    /// A plaintext cannot turn into a state event: only what the server sees as one is.
    fn is_state(&self) -> bool {
        self.state_key().is_some()
    }

    /// Its plaintext is none of an event.
    fn is_nonsense(&self) -> bool {
        self.inner.as_ref().is_some_and(|inner| str_at(&inner.value, &["type"]).is_none())
    }

    /// It is still encrypted. What a redaction left of a ciphertext is not.
    fn is_ciphertext(&self) -> bool {
        self.kind() == Some("m.room.encrypted") && !self.is_state() && !self.is_redacted()
    }

    fn previous(&self) -> Option<&Value> {
        lenient::at(&self.outer.value, &["unsigned", "prev_content"])
    }

    /// The state event before this one, where the homeserver names it without saying what it said.
    fn unknown_previous(&self) -> Option<&str> {
        if !self.is_state() || self.previous().is_some() {
            return None;
        }
        self.text(&["unsigned", "replaces_state"])
    }

    fn is_redacted(&self) -> bool {
        lenient::at(&self.outer.value, &["unsigned", "redacted_because"]).is_some_and(Value::is_object)
    }

    /// The event that a redaction redacts. Room version 11 moved it into the content, and servers
    /// send both; when only one is there, that one counts.
    fn redacts(&self) -> Option<&str> {
        if self.kind() != Some("m.room.redaction") || self.is_state() {
            return None;
        }
        str_at(self.content(), &["redacts"]).or_else(|| self.text(&["redacts"]))
    }

    fn occurred(&self) -> Occurred {
        occurred(&self.outer.value)
    }

    fn malformed(&self) -> Vec<&str> {
        let inner = self.inner.iter().flat_map(|inner| &inner.malformed);
        self.outer.malformed.iter().chain(inner).map(String::as_str).collect()
    }
}

/// Names an event that has no identifier by its text.
fn digest_id(room_id: &str, raw: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(room_id.as_bytes());
    hash.update([0]);
    hash.update(raw.as_bytes());
    format!("matrix:opaque:{}", hex::encode(hash.finalize()))
}

/// When an event says that it happened.
pub(crate) fn occurred(event: &Value) -> Occurred {
    let at = lenient::at(event, &["origin_server_ts"]).and_then(Value::as_i64);
    at.map_or(Occurred::Unknown, Occurred::At)
}

/// The sender of the event that an earlier record or event is of.
pub(crate) fn author(earlier: &Earlier) -> Option<&str> {
    match earlier {
        Earlier::Record(record) => sender(record),
        Earlier::Event(event) => str_at(event, &["sender"]),
        Earlier::Perhaps(earlier) => author(earlier),
    }
}

/// The sender of the event that a record is of.
pub(crate) fn sender(record: &RecordDraft) -> Option<&str> {
    match (&record.on_behalf_of, &record.actor) {
        (Some(user), _) => Some(user),
        (None, Actor::MatrixUser { id }) => Some(id),
        _ => None,
    }
}

/// Only the author can replace an event, and only by one of the same type.
pub(crate) fn may_replace(sender: Option<&str>, kind: Option<&str>, earlier: &Earlier) -> bool {
    let same_author = author(earlier).is_none_or(|author| Some(author) == sender);
    let old = earlier_event(earlier);
    let old_kind = old.as_ref().and_then(|old| str_at(old, &["type"]));
    let comparable = |kind: &&str| *kind != "m.room.encrypted";
    let same_kind = match (old_kind.filter(comparable), kind.filter(comparable)) {
        (Some(old), Some(new)) => old == new,
        _ => true,
    };
    same_author && same_kind
}

/// Type and content of the event that an earlier record or event is of, decrypted if it can be.
fn earlier_event(earlier: &Earlier) -> Option<Value> {
    match earlier {
        Earlier::Record(record) => {
            let raw = record.plaintext_raw.as_deref().or(record.source_raw.as_deref())?;
            Some(lenient::parse(raw).value)
        }
        Earlier::Event(event) => Some(event.clone()),
        Earlier::Perhaps(earlier) => earlier_event(earlier),
    }
}
