//! From drafts to rows: everything that can be computed before the transaction.

use jiff::Timestamp;
use rand::Rng;
use sqlx::types::Uuid;

use super::scram::hmac_sha256;
use crate::{
    domain::record::RecordDraft,
    store::derive::{self, Derived},
    trail::{
        Digest, content,
        envelope::{self, Salt},
    },
};

/// The key under which source ids are hashed.
#[derive(Clone)]
pub(super) struct SourceKey(pub(super) Vec<u8>);

impl std::fmt::Debug for SourceKey {
    /// Who has the key can tell whether an erased event was recorded.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SourceKey([redacted])")
    }
}

impl SourceKey {
    /// 128 bits of HMAC-SHA-256, in the type that Postgres keeps in exactly 16 bytes.
    pub(super) fn hash(&self, source_id: &str) -> Uuid {
        let mac = hmac_sha256(&self.0, source_id.as_bytes());
        let mut half = [0; 16];
        half.copy_from_slice(&mac[..16]);
        Uuid::from_bytes(half)
    }
}

/// A record that has everything but its number.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) source: Uuid,
    pub(super) category: u8,
    pub(super) occurred_at: Timestamp,
    pub(super) salt: Salt,
    pub(super) content: Vec<u8>,
    pub(super) commitment: Digest,
    /// `None` once the database has refused it.
    pub(super) derived: Option<Derived>,
}

impl Prepared {
    pub(super) fn new(
        draft: &RecordDraft,
        key: &SourceKey,
        recorded_at: Timestamp,
        rng: &mut impl Rng,
    ) -> Self {
        let mut salt = Salt::default();
        rng.fill_bytes(&mut salt);
        let content = content::encode(draft);
        Self {
            source: key.hash(&draft.source_id),
            category: envelope::category_number(draft.category),
            occurred_at: draft.occurred.clamped(recorded_at),
            salt,
            commitment: envelope::commitment(&salt, &content),
            content,
            derived: Some(derive::derive(draft)),
        }
    }

    /// Size of the row, for dividing a batch into statements.
    pub(super) fn bytes(&self) -> usize {
        let derived = self.derived.as_ref().map_or(0, |derived| {
            derived.words.len() + derived.relations.iter().map(String::len).sum::<usize>()
        });
        self.content.len() + derived + 256
    }
}
