//! Which bots were looked at completely not long ago, so that a mere report of a worker does not
//! make the operator read everything again.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::status::Facts;
use crate::domain::worker::Check;

/// Bots by UID.
#[derive(Debug, Default)]
pub struct Recent {
    entries: Mutex<HashMap<String, Entry>>,
}

#[derive(Debug, Clone)]
struct Entry {
    fingerprint: String,
    at: Instant,
    found: Complete,
}

/// What a complete look at a bot has found.
#[derive(Debug, Clone)]
pub struct Complete {
    /// Condition `AccountReady`.
    pub account: Check,
    /// What goes into the status.
    pub facts: Facts,
    /// Generation of the workload that was applied.
    pub workload_generation: Option<i64>,
}

impl Recent {
    /// What the last complete look has found, if it is young and the bot has not changed since.
    pub fn complete(&self, uid: &str, fingerprint: &str, max_age: Duration) -> Option<Complete> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.get(uid)?;
        (entry.fingerprint == fingerprint && entry.at.elapsed() < max_age).then(|| entry.found.clone())
    }

    /// Remembers a complete look.
    pub fn remember(&self, uid: &str, fingerprint: String, found: Complete) {
        let entry = Entry { fingerprint, at: Instant::now(), found };
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).insert(uid.to_owned(), entry);
    }

    /// Something that a complete look reads has changed.
    pub fn forget(&self, uid: &str) {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }

    /// Keeps only bots that still exist.
    pub fn retain(&self, exists: impl Fn(&str) -> bool) {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).retain(|uid, _| exists(uid));
    }
}
