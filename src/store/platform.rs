//! The console's own database as a trait: where records wait that no trail takes yet.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::StoreError;
use crate::domain::BotName;

/// A record on its way into the inbox of a trail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Whose trail.
    pub bot: BotName,
    /// Source id of the record: the same is kept once.
    pub source_id: String,
    /// Its number in the inbox.
    pub counter: i64,
    /// The record, encoded. Those of one record for many trails share it.
    pub body: Bytes,
    /// Whether the one who reported it proved to be the API server.
    pub is_proven: bool,
}

/// A message that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Its number here.
    pub id: i64,
    /// Its number in the inbox.
    pub counter: i64,
    /// The record, encoded.
    pub body: Vec<u8>,
}

/// What waits for a trail, or the beginning of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Number of the trail here.
    pub trail: i64,
    /// Whose trail.
    pub bot: BotName,
    /// So many tries in a row have failed.
    pub tries: u32,
    /// Oldest first.
    pub messages: Vec<Waiting>,
}

/// Which trails are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Any of them.
    All,
    /// Those that could be reached the last time, or were not tried yet.
    Answering,
}

/// How much waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WaitingTotals {
    /// All messages.
    pub messages: u64,
    /// Those whose bots were not seen in the last ten minutes; none before it is known which bots there are.
    pub left_over: u64,
    /// For how long the oldest of the others has been waiting.
    pub oldest: Duration,
}

/// For how long messages wait for a bot that there is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Those of the API server.
    pub proven: Duration,
    /// Those of somebody who did not prove to be it.
    pub unproven: Duration,
}

/// The console's own database.
#[async_trait]
pub trait PlatformStore: Send + Sync {
    /// Keeps all of them, or none. Returns when they are durable.
    async fn keep(&self, messages: &[Message]) -> Result<(), StoreError>;
    /// Bytes of the waiting messages that come from somebody who proved nothing.
    async fn unproven_bytes(&self) -> Result<u64, StoreError>;
    /// The messages of one of these trails that is due, if there is one: that which has been due for longest. Nobody else
    /// gets it until it is released, or for as long as `lease` says.
    async fn take(&self, limit: u32, lease: Duration, which: Which) -> Result<Option<Page>, StoreError>;
    /// These have reached their trail.
    async fn done(&self, ids: &[i64]) -> Result<(), StoreError>;
    /// What still waits for this trail is tried again after this time; so many tries in a row have failed.
    async fn release(&self, trail: i64, after: Duration, tries: u32) -> Result<(), StoreError>;
    /// The trails of these bots are due now.
    async fn hurry(&self, bots: &[BotName]) -> Result<(), StoreError>;
    /// How much waits; before it is known which bots there are, all of them seem to be there.
    async fn totals(&self, bots_known: bool) -> Result<WaitingTotals, StoreError>;
    /// There are these bots.
    async fn seen(&self, bots: &[BotName]) -> Result<(), StoreError>;
    /// Removes messages for bots that were not seen for a long time. Returns how many, by bot.
    async fn expire(&self, patience: Patience) -> Result<Vec<(BotName, u64)>, StoreError>;
    /// What was recorded last of a thing.
    async fn known(&self, name: &str) -> Result<Option<String>, StoreError>;
    /// Keeps that, together with messages that say so; nothing if the value kept is not `before` any more.
    /// Returns whether it did.
    async fn note(
        &self,
        name: &str,
        before: Option<&str>,
        value: &str,
        messages: &[Message],
    ) -> Result<bool, StoreError>;
    /// Removes what was noted more than a day ago of other things than these.
    async fn forget_known(&self, but: &[String]) -> Result<(), StoreError>;
}
