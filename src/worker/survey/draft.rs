//! Records of what a look has shown.

use serde_json::Value;

use crate::domain::record::{Category, Change, Occurred, RecordDraft, Relation, Subject};

/// Between which looks something happened, in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    /// The look before; none: this is the first.
    pub(super) before: Option<i64>,
    /// This look: when it began.
    pub(super) now: i64,
    /// When the answer was there.
    until: i64,
}

impl Span {
    pub(super) const fn new(before: Option<i64>, now: i64) -> Self {
        Self { before, now, until: now }
    }

    /// The same for an answer that came now: until then it may have happened.
    pub(super) fn until(self, until: i64) -> Self {
        Self { until: until.max(self.now), ..self }
    }

    pub(super) fn occurred(self) -> Occurred {
        self.before.map_or(Occurred::Unknown, |before| Occurred::Between(before, self.until))
    }
}

/// A record whose actor and time the homeserver does not tell.
pub(super) fn seen(source_id: String, category: Category, action: &str, span: Span) -> RecordDraft {
    RecordDraft::bare(source_id, category, action, span.occurred())
}

/// A record of the same kind about an account.
pub(super) fn about(
    user: &str,
    source_id: String,
    category: Category,
    action: &str,
    span: Span,
) -> RecordDraft {
    let mut draft = seen(source_id, category, action, span);
    draft.relations.push(Relation::new("user", user, "target"));
    draft.subjects.push(subject(user, "target"));
    draft
}

pub(super) fn subject(person: &str, role: &str) -> Subject {
    Subject { person: person.to_owned(), role: role.to_owned() }
}

/// A value that is there now and of which nothing was known.
pub(super) fn new_value(path: &str, value: impl Into<Value>) -> Change {
    Change { path: path.to_owned(), before: None, after: Some(value.into()) }
}
