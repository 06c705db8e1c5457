//! What a homeserver has accepted from its clients, as it told them.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
    time::{Duration, Instant},
};

/// What an accepted event is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// With this text.
    Plain(String),
    /// With this text, encrypted.
    Encrypted(String),
    /// A new text for an earlier event.
    Edit(String),
    /// The same, encrypted.
    EncryptedEdit(String),
    /// Its content may be gone before anybody reads it.
    Doomed,
    /// A reaction, a redaction, a state event.
    Other(&'static str),
}

impl Said {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Plain(_) => "messages",
            Self::Encrypted(_) => "encrypted messages",
            Self::Edit(_) => "edits",
            Self::EncryptedEdit(_) => "encrypted edits",
            Self::Doomed => "messages to be redacted",
            Self::Other(name) => name,
        }
    }
}

/// One event that a client was told the identifier of.
#[derive(Debug, Clone)]
pub struct Accepted {
    pub said: Said,
    pub room: String,
    /// Since the ledger was opened.
    pub after: Duration,
}

/// See the module.
#[derive(Debug)]
pub struct Ledger {
    opened: Instant,
    events: Mutex<BTreeMap<String, Accepted>>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self { opened: Instant::now(), events: Mutex::default() }
    }
}

impl Ledger {
    /// Enters an event that was accepted now.
    pub fn enter(&self, event: &str, room: &str, said: Said) {
        let accepted = Accepted { said, room: room.to_owned(), after: self.now() };
        self.events().insert(event.to_owned(), accepted);
    }

    pub fn now(&self) -> Duration {
        self.opened.elapsed()
    }

    pub fn events(&self) -> MutexGuard<'_, BTreeMap<String, Accepted>> {
        self.events.lock().unwrap()
    }

    /// How many there are of each kind.
    pub fn counts(&self) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::new();
        for accepted in self.events().values() {
            *counts.entry(accepted.said.name()).or_default() += 1;
        }
        counts
    }
}
