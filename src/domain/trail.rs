//! Where a trail stands, as its store, the custom resource's status and the kept ConfigMap say it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A point of a trail: after `size` records of epoch `epoch` the hash is `root_hash`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrailPoint {
    /// Counts the decisions to go on after the database was behind or different; starts at 1.
    pub epoch: i64,
    /// Number of records, over all epochs.
    pub size: i64,
    /// Hash over the envelopes of all these records, lower-case hexadecimal, 64 characters.
    pub root_hash: String,
}

/// How a database compares with a point that was promised before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Continuity {
    /// It contains the promised point.
    Continues,
    /// It is shorter than was promised: restored from an older backup, or the wrong database.
    Behind {
        /// What the database has.
        found: TrailPoint,
        /// What was reported of it before.
        promised: TrailPoint,
    },
    /// It has other records than was promised.
    Different {
        /// What the database has.
        found: TrailPoint,
        /// What was reported of it before.
        promised: TrailPoint,
    },
}

impl fmt::Display for Continuity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Continues => f.write_str("the database continues the trail"),
            Self::Behind { found, promised } => write!(
                f,
                "the database holds {} records of epoch {}, fewer than the {} of epoch {} that were reported: it was \
                 restored from an older backup, or it is another one",
                found.size, found.epoch, promised.size, promised.epoch
            ),
            Self::Different { found, promised } => write!(
                f,
                "the database holds {} records of epoch {}, and the first {} of epoch {} are not those that were reported",
                found.size, found.epoch, promised.size, promised.epoch
            ),
        }
    }
}
