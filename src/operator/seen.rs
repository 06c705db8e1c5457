//! Which bots were looked at completely not long ago, so that a mere report of a worker does not
//! make the operator read everything again.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
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

#[derive(Debug, Default)]
struct Entry {
    /// How often something has changed that a complete look reads.
    changes: u64,
    last: Option<Last>,
}

#[derive(Debug)]
struct Last {
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

/// A complete look that has begun; what changes from then on it may have read before the change.
#[derive(Debug)]
#[must_use]
pub struct Look {
    uid: String,
    changes: u64,
}

impl Recent {
    /// What the last complete look has found, if it is young and the bot has not changed since.
    pub fn complete(&self, uid: &str, fingerprint: &str, max_age: Duration) -> Option<Complete> {
        let entries = self.entries();
        let last = entries.get(uid)?.last.as_ref()?;
        (last.fingerprint == fingerprint && last.at.elapsed() < max_age).then(|| last.found.clone())
    }

    /// Before the first thing that a complete look reads.
    pub fn begin(&self, uid: &str) -> Look {
        Look { uid: uid.to_owned(), changes: self.entries().entry(uid.to_owned()).or_default().changes }
    }

    /// Remembers a complete look, unless something has changed since it began: who was told of the change then looks
    /// again, and must not be told that everything was read.
    pub fn remember(&self, look: Look, fingerprint: String, found: Complete) {
        let Look { uid, changes } = look;
        if let Some(entry) = self.entries().get_mut(&uid)
            && entry.changes == changes
        {
            entry.last = Some(Last { fingerprint, at: Instant::now(), found });
        }
    }

    /// Something that a complete look reads has changed.
    pub fn forget(&self, uid: &str) {
        let mut entries = self.entries();
        let entry = entries.entry(uid.to_owned()).or_default();
        entry.changes += 1;
        entry.last = None;
    }

    /// Keeps only bots that still exist.
    pub fn retain(&self, exists: impl Fn(&str) -> bool) {
        self.entries().retain(|uid, _| exists(uid));
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found() -> Complete {
        let account = Check::ok("AccountUsable", "there");
        Complete { account, facts: Facts::default(), workload_generation: Some(1) }
    }

    fn is_remembered(recent: &Recent) -> bool {
        recent.complete("bot", "as it is", Duration::MAX).is_some()
    }

    #[test]
    fn a_look_is_remembered_until_something_changes() {
        let recent = Recent::default();
        assert!(!is_remembered(&recent));
        recent.remember(recent.begin("bot"), "as it is".to_owned(), found());
        assert!(is_remembered(&recent));
        assert!(recent.complete("bot", "changed", Duration::MAX).is_none());
        assert!(recent.complete("bot", "as it is", Duration::ZERO).is_none());
        recent.forget("bot");
        assert!(!is_remembered(&recent));
    }

    #[test]
    fn a_look_during_which_something_changed_is_not_remembered() {
        let recent = Recent::default();
        let look = recent.begin("bot");
        recent.forget("bot");
        recent.remember(look, "as it is".to_owned(), found());
        assert!(!is_remembered(&recent));
        recent.remember(recent.begin("bot"), "as it is".to_owned(), found());
        assert!(is_remembered(&recent));
    }

    #[test]
    fn a_bot_that_is_gone_is_not_remembered() {
        let recent = Recent::default();
        let look = recent.begin("bot");
        recent.retain(|_| false);
        recent.remember(look, "as it is".to_owned(), found());
        assert!(!is_remembered(&recent) && recent.entries().is_empty());
    }
}
