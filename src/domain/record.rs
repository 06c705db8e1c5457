//! The audit record: who did what, when, before and after, in which context, to which resources.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The five categories of the audit trail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Category {
    /// Changes of rooms, bots, integrations and configurations.
    ResourceChange,
    /// What users do: messages, membership, permission changes.
    UserActivity,
    /// Upgrades, security and policy changes, spans that were not captured.
    SystemChange,
    /// Logins, logouts and who read what.
    AccessEvent,
    /// Accounts, billing, organisation.
    AdminOperation,
}

impl Category {
    /// Every category, in the order of their numbers.
    pub const ALL: [Self; 5] = [
        Self::ResourceChange,
        Self::UserActivity,
        Self::SystemChange,
        Self::AccessEvent,
        Self::AdminOperation,
    ];

    /// The name in the database, in metrics and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ResourceChange => "resource_change",
            Self::UserActivity => "user_activity",
            Self::SystemChange => "system_change",
            Self::AccessEvent => "access_event",
            Self::AdminOperation => "admin_operation",
        }
    }

    /// The inverse of [`Self::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|category| category.as_str() == text)
    }
}

/// Who did it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Actor {
    /// A Matrix user, as the homeserver names it.
    MatrixUser {
        /// The full user identifier; kept as text since a remote server may send anything.
        id: String,
    },
    /// A Kubernetes user with the groups of its request.
    KubernetesUser {
        /// User name.
        id: String,
        /// Groups.
        groups: Vec<String>,
    },
    /// A part of this product.
    Service {
        /// For example `ems-bots/worker`.
        id: String,
    },
    /// The source does not tell.
    Unknown,
}

impl Actor {
    /// A Matrix user.
    pub fn matrix(id: impl Into<String>) -> Self {
        Self::MatrixUser { id: id.into() }
    }

    /// The worker itself.
    pub fn worker() -> Self {
        Self::Service { id: "ems-bots/worker".to_owned() }
    }

    /// The text to search for.
    pub fn id(&self) -> &str {
        match self {
            Self::MatrixUser { id } | Self::KubernetesUser { id, .. } | Self::Service { id } => id,
            Self::Unknown => "unknown",
        }
    }
}

/// When it happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Occurred {
    /// At a time that the source names, in milliseconds since 1970. Hostile: a sender chooses it
    /// freely, so it may be absurd or negative.
    At(i64),
    /// Some time between two looks at the source, in milliseconds since 1970.
    Between(i64, i64),
    /// Not known; the time of recording is all there is.
    Unknown,
}

impl Occurred {
    /// The instant to sort and partition by: the claimed time (of an interval its end) if it lies
    /// between 2010-01-01 and one day after `recorded_at`, else `recorded_at`.
    pub fn clamped(self, recorded_at: Timestamp) -> Timestamp {
        const EARLIEST_MS: i64 = 1_262_304_000_000;
        const DAY_MS: i64 = 86_400_000;
        let claimed = match self {
            Self::At(ms) | Self::Between(_, ms) => ms,
            Self::Unknown => return recorded_at,
        };
        let latest = recorded_at.as_millisecond().saturating_add(DAY_MS);
        if (EARLIEST_MS..=latest).contains(&claimed) {
            Timestamp::from_millisecond(claimed).unwrap_or(recorded_at)
        } else {
            recorded_at
        }
    }
}

/// The circumstances, each where known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context {
    /// Device that acted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_id: Option<String>,
    /// Network address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// User agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
    /// Session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// Reason that the actor gave, or that the rule that acted has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// How a resource takes part in a record.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Relation {
    /// What kind of resource: `room`, `event`, `user`, `device`, `media`, `space`, `bot`, ...
    pub kind: String,
    /// Its identifier.
    pub id: String,
    /// Its part: `in` (the room it happened in), `target`, `replaces`, `reacts_to`, `replies_to`,
    /// `thread`, `redacts`, `plaintext_of`, ...
    pub role: String,
}

impl Relation {
    /// A relation of these three texts.
    pub fn new(kind: impl Into<String>, id: impl Into<String>, role: impl Into<String>) -> Self {
        Self { kind: kind.into(), id: id.into(), role: role.into() }
    }
}

/// One value that changed. The value `None` means that there was, or is, none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Where, as an RFC 6901 JSON Pointer into the resource's state, for example
    /// `/m.room.power_levels/users/@alice:example.org`.
    pub path: String,
    /// The value before.
    pub before: Option<Value>,
    /// The value after.
    pub after: Option<Value>,
}

/// How far the sender's claim can be trusted (Matrix specification, end-to-end encryption).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trust {
    /// Was sent unencrypted: the homeserver vouches for the sender, nobody else does.
    Plain,
    /// Decrypted; sent by a device that its owner has cross-signed.
    VerifiedDevice,
    /// Decrypted; sent by a known device that its owner has not cross-signed, or by a user whose identity changed.
    UnverifiedDevice,
    /// Decrypted with a key from the key backup or an import: the sending device cannot be proven.
    KeyFromBackup,
    /// Decrypted with a key that another device forwarded.
    Forwarded,
    /// Decrypted; nothing is known of the sending device.
    UnknownDevice,
    /// Could not be decrypted (yet): the ciphertext is recorded.
    Undecryptable,
}

impl Trust {
    /// The name in the database and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::VerifiedDevice => "verified_device",
            Self::UnverifiedDevice => "unverified_device",
            Self::KeyFromBackup => "key_from_backup",
            Self::Forwarded => "forwarded",
            Self::UnknownDevice => "unknown_device",
            Self::Undecryptable => "undecryptable",
        }
    }
}

/// A person whose data a record contains.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Subject {
    /// Identifier of the person, a Matrix user id as a rule.
    pub person: String,
    /// `actor`, `target`, `mentioned`, `author` (of a replaced or redacted event), ...
    pub role: String,
}

/// Where an edit stands among the edits of its event: the one with the latest time is shown, and of several of the same
/// time the one with the greatest identifier (Matrix specification, event replacements).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Its time, as [`Occurred::clamped`] has it.
    pub at: Timestamp,
    /// Its identifier.
    pub event_id: String,
}

/// The source id of the record of a Matrix event.
pub fn event_source_id(event_id: &str) -> String {
    format!("matrix:event:{event_id}")
}

/// The source id of the record of a plaintext that came later than its event.
pub fn plaintext_source_id(event_id: &str) -> String {
    format!("matrix:plaintext:{event_id}")
}

/// A record before it has a number: what a source hands over to the trail.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecordDraft {
    /// Unique for what it describes, for ever, for example `matrix:event:$id` or
    /// `matrix:plaintext:$id`. A second draft with the same source id is not recorded again.
    pub source_id: String,
    /// Category.
    pub category: Category,
    /// Dotted verb from a closed vocabulary, for example `message.sent`, `room.member.joined`.
    pub action: String,
    /// When it happened.
    pub occurred: Occurred,
    /// Who did it.
    pub actor: Actor,
    /// In whose name the actor made the homeserver act.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_behalf_of: Option<String>,
    /// Circumstances.
    pub context: Context,
    /// Every resource it touches.
    pub relations: Vec<Relation>,
    /// Values before and after.
    pub changes: Vec<Change>,
    /// Human-readable text to search in: the message body and the like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The source as received (for Matrix: the event's JSON text byte by byte; for a decrypted
    /// one the ciphertext event), or nothing where the record itself is all there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_raw: Option<String>,
    /// For a decrypted event: the JSON text that the ciphertext contained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plaintext_raw: Option<String>,
    /// Trust in the sender.
    pub trust: Trust,
    /// For an undecryptable event: why, from a closed set (`missing_key`, `key_withheld`,
    /// `before_join`, `corrupt`, `unknown`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undecryptable_reason: Option<String>,
    /// Everyone whose data it contains.
    pub subjects: Vec<Subject>,
}

impl RecordDraft {
    /// The Matrix event that it is a record of, or of whose plaintext.
    pub fn event_id(&self) -> Option<&str> {
        let own = |relation: &&Relation| {
            relation.kind == "event" && ["self", "plaintext_of"].contains(&relation.role.as_str())
        };
        self.relations.iter().find(own).map(|relation| relation.id.as_str())
    }

    /// A record of which nothing more is known: by nobody known, about nothing, without a source.
    pub fn bare(
        source_id: impl Into<String>,
        category: Category,
        action: impl Into<String>,
        occurred: Occurred,
    ) -> Self {
        Self {
            source_id: source_id.into(),
            category,
            action: action.into(),
            occurred,
            actor: Actor::Unknown,
            on_behalf_of: None,
            context: Context::default(),
            relations: Vec::new(),
            changes: Vec::new(),
            text: None,
            source_raw: None,
            plaintext_raw: None,
            trust: Trust::Plain,
            undecryptable_reason: None,
            subjects: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absurd_times_are_clamped_to_the_time_of_recording() {
        let now = Timestamp::from_millisecond(1_790_000_000_000).unwrap();
        assert_eq!(Occurred::At(i64::MAX).clamped(now), now);
        assert_eq!(Occurred::At(i64::MIN).clamped(now), now);
        assert_eq!(Occurred::Unknown.clamped(now), now);
        let yesterday = now.as_millisecond() - 86_400_000;
        assert_eq!(Occurred::At(yesterday).clamped(now).as_millisecond(), yesterday);
        assert_eq!(Occurred::Between(0, yesterday).clamped(now).as_millisecond(), yesterday);
    }

    #[test]
    fn category_names_round_trip() {
        for category in Category::ALL {
            assert_eq!(Category::parse(category.as_str()), Some(category));
        }
        assert_eq!(Category::parse("everything"), None);
    }
}
