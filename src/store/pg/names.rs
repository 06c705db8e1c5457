//! Names in the database: the schema of a bot and the roles that use it.

use std::fmt;

use sha2::{Digest as _, Sha256};

/// The schema of one bot's trail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaName(String);

/// Why a text cannot be a schema's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a schema name: use 1 to 40 of a-z, 0-9 and _, beginning with a letter, not with pg_")]
pub struct SchemaNameError(String);

impl SchemaName {
    /// Parses a name that needs no quoting and leaves room for what is appended to it.
    pub fn parse(text: &str) -> Result<Self, SchemaNameError> {
        let valid = (1..=40).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
            && !text.starts_with("pg_");
        if valid { Ok(Self(text.to_owned())) } else { Err(SchemaNameError(text.chars().take(80).collect())) }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SchemaName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for SchemaName {
    type Err = SchemaNameError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

/// Who uses a trail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// The worker: adds records, changes none.
    Writer,
    /// Reads records.
    Reader,
    /// Puts messages into the inbox and can do nothing else.
    Inbox,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 3] = [Self::Writer, Self::Reader, Self::Inbox];

    /// `writer`, `reader` or `inbox`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Writer => "writer",
            Self::Reader => "reader",
            Self::Inbox => "inbox",
        }
    }
}

/// The name of a generated role. Roles are global in a Postgres cluster, so the name depends on
/// the database, too.
pub fn role_name(schema: &SchemaName, dbname: &str, role: Role) -> String {
    let hash = hex::encode(Sha256::digest(dbname));
    format!("{schema}_{}_{}", &hash[..8], role.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn role_names_fit_and_differ_by_database() {
        let schema = SchemaName::parse(&"a".repeat(40)).unwrap();
        for role in Role::ALL {
            assert!(role_name(&schema, "tenant", role).len() <= 63);
            assert_ne!(role_name(&schema, "tenant", role), role_name(&schema, "other", role));
        }
    }

    #[test]
    fn hostile_schema_names_are_refused() {
        for name in ["", "Audit", "a b", "a\"; DROP", "pg_catalog", "1a", "ä", &"a".repeat(41)] {
            assert!(SchemaName::parse(name).is_err(), "{name}");
        }
        assert!(SchemaName::parse("auditbot").is_ok());
    }
}
