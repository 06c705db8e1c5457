//! What the console needs from the outside, as traits.

use std::sync::Arc;

use async_trait::async_trait;

use crate::domain::BotName;

/// Why a trail's inbox did not take a message; it waits then. For the log.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotTaken(pub String);

/// The inboxes of the tenants' trails.
#[async_trait]
pub trait Inboxes: Send + Sync {
    /// That of a bot's trail as it is at this moment. To be asked for again before the next messages: the database of a
    /// trail may move, and what goes into the one before is lost.
    async fn find(&self, bot: &BotName) -> Result<Arc<dyn Inbox>, NotTaken>;

    /// Closes what was opened for other bots than these.
    fn keep_only(&self, bots: &[BotName]);
}

/// The inbox of one trail.
#[async_trait]
pub trait Inbox: Send + Sync {
    /// Returns once the trail's own database has the message. Putting the same one again does nothing.
    async fn put(&self, counter: i64, body: &[u8]) -> Result<(), NotTaken>;
}
