//! What a record is found by: columns derived from its content, sanitised and limited in length so
//! that no value of a record can make the database refuse it. Pure.

use std::collections::BTreeSet;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::{
    domain::record::{RecordDraft, Relation},
    trail::json::{self, Step},
};

/// Version of these rules; 0 stands for columns that the database refused.
pub const VERSION: i16 = 1;
/// Stands between the parts of a relation.
const SEPARATOR: char = '\u{1f}';
/// A Matrix identifier has at most 255 bytes; keys of an index at most 2.7 kB.
const MAX_KEY: usize = 255;
/// An event has at most 64 KiB; a tsvector at most 1 MiB, and parts of compound words count twice.
const MAX_WORDS: usize = 128 * 1024;
/// A room or event touches a handful of resources; beyond this a record is found by the first ones.
const MAX_LIST: usize = 2_000;

/// The columns of one record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Derived {
    /// Key of the action.
    pub action: String,
    /// Key of the actor.
    pub actor: String,
    /// Key of the room it happened in.
    pub room: Option<String>,
    /// Keys of the relations, see [`relation_key`].
    pub relations: Vec<String>,
    /// Text for the full-text index.
    pub words: String,
    /// Keys of person and role.
    pub subjects: Vec<(String, String)>,
}

/// Derives the columns.
pub fn derive(draft: &RecordDraft) -> Derived {
    let room = draft.relations.iter().find(|relation| relation.kind == "room" && relation.role == "in");
    let relations: BTreeSet<_> = draft.relations.iter().take(MAX_LIST).map(relation_key).collect();
    let subjects: BTreeSet<_> = draft
        .subjects
        .iter()
        .take(MAX_LIST)
        .map(|subject| (key(&subject.person), key(&subject.role)))
        .collect();
    Derived {
        action: key(&draft.action),
        actor: key(draft.actor.id()),
        room: room.map(|room| key(&room.id)),
        relations: relations.into_iter().collect(),
        words: words(draft),
        subjects: subjects.into_iter().collect(),
    }
}

/// The text itself where it is an ordinary identifier, else a prefix and the hash of the whole. Who
/// searches maps the searched value in the same way, and so finds every value exactly.
pub fn key(text: &str) -> String {
    if text.len() <= MAX_KEY && !text.chars().any(char::is_control) {
        return text.to_owned();
    }
    let prefix: String = text.chars().filter(|c| !c.is_control()).take(32).collect();
    format!("{prefix}#{}", hex::encode(Sha256::digest(text)))
}

/// The key of a relation.
pub fn relation_key(relation: &Relation) -> String {
    let Relation { kind, id, role } = relation;
    format!("{}{SEPARATOR}{}{SEPARATOR}{}", key(role), key(kind), key(id))
}

/// The text with what Postgres cannot store replaced.
pub fn storable(text: &str) -> String {
    text.replace('\0', " ")
}

/// Everything of a record that a person would search for by its words.
fn words(draft: &RecordDraft) -> String {
    let mut words = Words(String::new());
    if let Some(text) = &draft.text {
        words.push(text);
    }
    for value in draft.changes.iter().flat_map(|change| [&change.before, &change.after]).flatten() {
        json::walk(value, |step| match step {
            Step::Scalar(Value::String(text)) => words.push(text),
            Step::Key(key) => words.push(key),
            _ => {}
        });
    }
    if let Some(reason) = &draft.context.reason {
        words.push(reason);
    }
    words.0
}

struct Words(String);

impl Words {
    fn push(&mut self, text: &str) {
        let left = MAX_WORDS.saturating_sub(self.0.len() + 1);
        let end = text.floor_char_boundary(left);
        if end > 0 {
            if !self.0.is_empty() {
                self.0.push(' ');
            }
            // A character that Postgres cannot store must not grow the text: U+FFFD has three bytes.
            self.0.extend(text[..end].chars().map(|c| if c == '\0' { ' ' } else { c }));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn keys_are_short_printable_and_differ_as_the_texts_do(
            a in proptest::collection::vec(any::<char>(), 0..600),
            b in proptest::collection::vec(any::<char>(), 0..600),
        ) {
            let (a, b): (String, String) = (a.into_iter().collect(), b.into_iter().collect());
            prop_assert!(key(&a).len() <= MAX_KEY);
            prop_assert!(!key(&a).chars().any(char::is_control));
            prop_assert_eq!(a == b, key(&a) == key(&b));
        }
    }

    #[test]
    fn an_ordinary_identifier_is_its_own_key() {
        assert_eq!(key("@alice:example.org"), "@alice:example.org");
        assert_ne!(key("a\0"), key("a\u{1}"));
    }

    #[test]
    fn words_are_cut_between_characters() {
        let mut words = Words(String::new());
        words.push(&"ä\0".repeat(MAX_WORDS));
        assert!(words.0.len() <= MAX_WORDS && !words.0.contains('\0'));
        words.push("more");
        assert!(words.0.len() <= MAX_WORDS);
    }
}
