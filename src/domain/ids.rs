//! Identifiers, each parsed once and then carried as its own type.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a text is not the identifier it was taken for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is not a {kind}: {problem}")]
pub struct IdError {
    /// What it should have been.
    pub kind: &'static str,
    /// The text, shortened to 80 characters.
    pub value: String,
    /// What is wrong with it.
    pub problem: &'static str,
}

impl IdError {
    fn new(kind: &'static str, value: &str, problem: &'static str) -> Self {
        Self { kind, value: value.chars().take(80).collect(), problem }
    }
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Parses and checks the text.
            pub fn parse(value: impl Into<String>) -> Result<Self, IdError> {
                let value = value.into();
                let check: fn(&str) -> Option<&'static str> = $check;
                match check(&value) {
                    Some(problem) => Err(IdError::new($kind, &value, problem)),
                    None => Ok(Self(value)),
                }
            }

            /// The text as it was parsed.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(value: String) -> Result<Self, IdError> {
                Self::parse(value)
            }
        }

        impl std::str::FromStr for $name {
            type Err = IdError;
            fn from_str(value: &str) -> Result<Self, IdError> {
                Self::parse(value)
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

/// A Matrix identifier is at most 255 bytes long (Matrix specification, appendices, "Common
/// identifier format").
const MAX_ID: usize = 255;

fn sigil(value: &str, sigil: char) -> Option<&'static str> {
    if !value.starts_with(sigil) {
        Some("wrong or missing sigil")
    } else if value.len() > MAX_ID {
        Some("longer than 255 bytes")
    } else if value.len() < 2 {
        Some("empty after the sigil")
    } else if value.contains('\0') {
        Some("contains U+0000")
    } else {
        None
    }
}

identifier!(
    /// Name of a homeserver, the part after the colon of its users' identifiers.
    ServerName,
    "server name",
    |value| {
        if value.is_empty() || value.len() > 230 {
            Some("must have 1 to 230 characters")
        } else if !value
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']'))
        {
            Some("may contain letters, digits, dots, hyphens, and a port only")
        } else {
            None
        }
    }
);

identifier!(
    /// The part of a user identifier between `@` and `:`; the strict grammar for new users.
    Localpart,
    "localpart",
    |value| {
        if value.is_empty() || value.len() > 200 {
            Some("must have 1 to 200 characters")
        } else if !value.bytes().all(|b| {
            b.is_ascii_lowercase()
                || b.is_ascii_digit()
                || matches!(b, b'.' | b'_' | b'=' | b'-' | b'/' | b'+')
        }) {
            Some("may contain a-z, 0-9 and ._=-/+ only")
        } else {
            None
        }
    }
);

identifier!(
    /// A Matrix user, `@localpart:server`. Historical localparts are accepted: other people's
    /// accounts may have them.
    UserId,
    "user id",
    |value| sigil(value, '@').or_else(|| (!value.contains(':')).then_some("no server name"))
);

identifier!(
    /// A Matrix room. Opaque: from room version 12 on it carries no server name.
    RoomId,
    "room id",
    |value| sigil(value, '!')
);

identifier!(
    /// A Matrix event.
    EventId,
    "event id",
    |value| sigil(value, '$')
);

identifier!(
    /// A device of a Matrix user.
    DeviceId,
    "device id",
    |value| {
        if value.is_empty() || value.len() > MAX_ID { Some("must have 1 to 255 bytes") } else { None }
    }
);

impl UserId {
    /// The user `@localpart:server`.
    pub fn from_parts(localpart: &Localpart, server: &ServerName) -> Self {
        Self(format!("@{localpart}:{server}"))
    }

    /// The text between `@` and the first colon.
    pub fn localpart(&self) -> &str {
        self.0[1..].split(':').next().unwrap_or_default()
    }

    /// The text after the first colon.
    pub fn server_name(&self) -> &str {
        self.0.split_once(':').map(|(_, server)| server).unwrap_or_default()
    }

    /// Whether the user's account is on this server.
    pub fn is_local_to(&self, server: &ServerName) -> bool {
        self.server_name() == server.as_str()
    }
}

/// Which of the two bots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BotKind {
    /// Has admin power in every room.
    Admin,
    /// Reads and records every conversation.
    Audit,
}

impl BotKind {
    /// `AdminBot` or `AuditBot`, the Kubernetes kind.
    pub fn kubernetes_kind(self) -> &'static str {
        match self {
            Self::Admin => "AdminBot",
            Self::Audit => "AuditBot",
        }
    }

    /// `adminbot` or `auditbot`: default username, schema and label value.
    pub fn slug(self) -> &'static str {
        match self {
            Self::Admin => "adminbot",
            Self::Audit => "auditbot",
        }
    }
}

impl fmt::Display for BotKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kubernetes_kind())
    }
}

/// Namespace and name of the custom resource that a process works for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BotName {
    /// The tenant's namespace.
    pub namespace: String,
    /// `metadata.name` of the custom resource.
    pub name: String,
    /// Its kind.
    pub kind: BotKind,
}

impl fmt::Display for BotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.kind.kubernetes_kind(), self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_id_has_its_parts() {
        let user = UserId::parse("@alice:example.org:8448").unwrap();
        assert_eq!(user.localpart(), "alice");
        assert_eq!(user.server_name(), "example.org:8448");
        assert!(user.is_local_to(&ServerName::parse("example.org:8448").unwrap()));
    }

    #[test]
    fn room_id_of_version_12_has_no_server() {
        assert!(RoomId::parse("!31hneApxJ_1o-63DmFrpeqnkFfWppnzWso1JvH3ogLM").is_ok());
    }

    #[test]
    fn wrong_identifiers_are_refused_with_a_reason() {
        assert_eq!(UserId::parse("alice").unwrap_err().problem, "wrong or missing sigil");
        assert_eq!(UserId::parse("@alice").unwrap_err().problem, "no server name");
        assert!(Localpart::parse("Alice").is_err());
        assert!(ServerName::parse("evil\n.example").is_err());
        assert!(RoomId::parse("!a\0b").is_err());
    }
}
