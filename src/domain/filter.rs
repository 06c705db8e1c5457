//! What a person searches for in a trail, and the pages of the answer.

use jiff::Timestamp;

use super::record::{Category, RecordDraft};

/// All conditions must hold; an empty filter matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SearchFilter {
    /// Words that must all occur in the text (full-text search).
    pub text: Option<String>,
    /// The room in which it happened.
    pub room: Option<String>,
    /// Identifier of the actor.
    pub actor: Option<String>,
    /// Action, exact, or a prefix that ends in a dot (`room.member.`).
    pub action: Option<String>,
    /// Category.
    pub category: Option<Category>,
    /// Occurred at or after.
    pub since: Option<Timestamp>,
    /// Occurred before.
    pub until: Option<Timestamp>,
}

/// Which part of the answer, newest record first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRequest {
    /// Records older than this sequence number only (keyset pagination).
    pub before_seq: Option<i64>,
    /// At most this many, 1 to 1000.
    pub limit: u16,
}

/// Part of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    /// The found items, newest first.
    pub items: Vec<T>,
    /// Pass this as [`PageRequest::before_seq`] for the next page; `None` at the end.
    pub next_before_seq: Option<i64>,
}

/// A record as it stands in the trail.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredRecord {
    /// Its number, dense, from 1.
    pub seq: i64,
    /// Epoch in which it was recorded.
    pub epoch: i64,
    /// When the worker wrote it.
    pub recorded_at: Timestamp,
    /// Occurrence, clamped (see [`super::record::Occurred::clamped`]).
    pub occurred_at: Timestamp,
    /// Everything else; `None` when its content was lawfully erased.
    pub content: Option<RecordDraft>,
}
