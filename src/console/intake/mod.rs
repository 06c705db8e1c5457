//! What the API server reports becomes records. Pure: any bytes give records, nothing, or a refusal.

pub mod admission;
pub mod audit;
mod bounds;
#[cfg(test)]
mod properties;
mod user;

use sha2::{Digest as _, Sha256};

use crate::domain::{BotName, record::RecordDraft};

/// Whose trail a record belongs in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// That of one bot.
    Bot(BotName),
    /// That of every bot: it is about what all of them rest on.
    Everybody,
}

/// A record on its way into a trail.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Where it belongs.
    pub target: Target,
    /// The record.
    pub draft: RecordDraft,
}

/// Why a report cannot be read. Says nothing of its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is no JSON, or nested too deeply.
    #[error("the body is no JSON that can be read")]
    NotJson,
    /// It is another object, or lacks what every such object has.
    #[error("the body is no {0}")]
    NotA(&'static str),
    /// A name in it is none that the API server would give.
    #[error("a name in the body is not that of a Kubernetes object")]
    Name,
}

/// The number of the message of a record in an inbox. It follows from the record's source: whichever replica
/// sends it, by whichever way, and however often, it is the same message, which is recorded once.
pub fn counter(source_id: &str) -> i64 {
    let hash = Sha256::digest(source_id.as_bytes());
    let mut half = [0; 8];
    half.copy_from_slice(&hash[..8]);
    // The inbox takes positive numbers only.
    (i64::from_be_bytes(half) & i64::MAX).max(1)
}
