//! Every kind of record there is: the closed set of categories, actions and relations.
//!
//! The tables here and in [`super::convert`] are what the program goes by; `docs/trail.md` explains
//! each row, and `tests/integration/docs.rs` compares the two both ways.

use super::convert::vocabulary as events;
use crate::domain::record::Category;

/// Category and action of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Verb {
    /// One of the five.
    pub category: Category,
    /// Dotted name.
    pub action: &'static str,
}

impl Verb {
    /// A verb of these two.
    pub const fn new(category: Category, action: &'static str) -> Self {
        Self { category, action }
    }
}

/// What makes a record, and which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Event types, `*` at the end standing for any rest; or what happened, in words.
    pub of: &'static [&'static str],
    /// What it is recorded as.
    pub verb: Verb,
}

impl Row {
    /// A row of these two.
    pub const fn new(of: &'static [&'static str], verb: Verb) -> Self {
        Self { of, verb }
    }

    /// Whether this is one of its event types.
    pub(crate) fn is_of(&self, kind: &str) -> bool {
        self.of.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(start) => kind.starts_with(start),
            None => kind == *pattern,
        })
    }

    /// What makes the record, as the document names it.
    fn name(&self) -> String {
        self.of.join(", ")
    }
}

pub(crate) const fn activity(action: &'static str) -> Verb {
    Verb::new(Category::UserActivity, action)
}

pub(crate) const fn resource(action: &'static str) -> Verb {
    Verb::new(Category::ResourceChange, action)
}

pub(crate) const fn system(action: &'static str) -> Verb {
    Verb::new(Category::SystemChange, action)
}

pub(crate) const fn operation(action: &'static str) -> Verb {
    Verb::new(Category::AdminOperation, action)
}

/// What the worker does, and what it finds out about itself.
pub const OWN: &[Row] = &[
    Row::new(&["the worker starts"], system("worker.started")),
    Row::new(&["the worker stops"], system("worker.stopped")),
    Row::new(&["the bot's cryptographic identity is made"], system("bot.identity.finished")),
    Row::new(&["somebody changed that identity, or it is good again"], system("bot.identity.state_changed")),
    Row::new(&["a person asks to repair that identity"], system("bot.identity.repair_asked")),
    Row::new(&["that identity was made anew"], system("bot.identity.repaired")),
    Row::new(&["a part of a room's history cannot be read"], system("capture.gap")),
    Row::new(&["the bot was suspended"], system("capture.suspended")),
    Row::new(&["the bot's configuration changed"], resource("bot.configuration.changed")),
    Row::new(&["the bot is deleted"], operation("bot.deleted")),
    Row::new(&["the bot is about to act in a room"], operation("bot.act.intended")),
    Row::new(&["the bot acted"], operation("bot.act.done")),
    Row::new(&["the homeserver refused the act"], operation("bot.act.failed")),
];

/// Messages of other programs to the trail, where they are not recorded as what they claim to be.
pub const INBOX: &[Row] = &[
    Row::new(&["a message to the trail cannot be read"], system("inbox.unreadable")),
    Row::new(&["a message to the trail is not authentic"], system("inbox.unauthenticated")),
];

/// Everything that is ever recorded: what makes the record, and as what it is recorded.
pub fn all() -> Vec<(String, Verb)> {
    let plain = [events::MESSAGES, events::STATES, events::SPECIAL, OWN, INBOX];
    let plain = plain.into_iter().flatten().map(|row| (row.name(), row.verb));
    let kinds = events::MSGTYPES.iter().map(|row| (format!("m.room.message with {}", row.name()), row.verb));
    let redactions =
        events::REDACTIONS.iter().map(|row| (format!("a redaction of {}", row.name()), row.verb));
    let members = events::TRANSITIONS.iter().map(|transition| (transition.name(), transition.verb));
    plain.chain(kinds).chain(redactions).chain(members).collect()
}

/// Kinds of resources and the parts they take in records.
pub const RELATIONS: &[(&str, &str)] = &[
    ("bot", "target"),
    ("bridge", "target"),
    ("call", "part_of"),
    ("event", "annotates"),
    ("event", "caused"),
    ("event", "claims_to_replace"),
    ("event", "pinned"),
    ("event", "plaintext_of"),
    ("event", "reacts_to"),
    ("event", "redacted_by"),
    ("event", "redacts"),
    ("event", "references"),
    ("event", "relates_to"),
    ("event", "replaces"),
    ("event", "replaces_state"),
    ("event", "replies_to"),
    ("event", "self"),
    ("event", "thread"),
    ("event", "unpinned"),
    ("media", "attached"),
    ("media", "thumbnail"),
    ("room", "admits"),
    ("room", "child"),
    ("room", "in"),
    ("room", "predecessor"),
    ("room", "successor"),
    ("room", "target"),
    ("server", "target"),
    ("space", "parent"),
    ("state", "accepts"),
    ("state", "target"),
    ("user", "authorised_by"),
    ("user", "bridge_bot"),
    ("user", "creator"),
    ("user", "target"),
    ("widget", "target"),
];

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    #[test]
    fn an_action_has_one_category_and_a_source_one_action() {
        let mut categories: BTreeMap<&str, BTreeSet<Category>> = BTreeMap::new();
        let mut sources: BTreeMap<String, BTreeSet<Verb>> = BTreeMap::new();
        for (source, verb) in all() {
            categories.entry(verb.action).or_default().insert(verb.category);
            sources.entry(source).or_default().insert(verb);
        }
        categories.retain(|_, found| found.len() > 1);
        assert!(categories.is_empty(), "{categories:?}");
        sources.retain(|_, found| found.len() > 1);
        assert!(sources.is_empty(), "{sources:?}");
        for category in Category::ALL.into_iter().filter(|category| *category != Category::AccessEvent) {
            assert!(all().iter().any(|(_, verb)| verb.category == category), "{category:?}");
        }
    }

    #[test]
    fn types_are_found_by_name_and_by_beginning() {
        let row = Row::new(&["m.one", "m.two.*"], system("x.y"));
        assert!(row.is_of("m.one") && row.is_of("m.two.") && row.is_of("m.two.three"));
        assert!(!row.is_of("m.one.more") && !row.is_of("m.two") && !row.is_of(""));
    }
}
