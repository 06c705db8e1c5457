//! What the worker needs from the outside, as traits: who reads its custom resource and who writes
//! its status is decided in `cli`.

use std::fmt;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::recorder::Stop;
use crate::domain::{
    RoomId,
    worker::{Instructions, WorkerReport},
};

/// The current instructions; the sender lives in the adapter that watches the custom resource.
pub type InstructionsReceiver = tokio::sync::watch::Receiver<Instructions>;

/// Why a report could not be delivered; the worker tries again by itself.
#[derive(Debug)]
pub struct ReportError(pub String);

impl fmt::Display for ReportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ReportError {}

/// Takes the worker's reports.
#[async_trait]
pub trait Reporter: Send + Sync {
    /// Delivers a complete report. Called only when something changed.
    async fn report(&self, report: &WorkerReport) -> Result<(), ReportError>;

    /// Resolves when somebody else speaks in the worker's place, so that it should report again.
    async fn overwritten(&self) {
        std::future::pending::<()>().await;
    }
}

/// What capture tells and asks the part that brings the bot into rooms.
#[async_trait]
pub trait Presence: Send + Sync {
    /// The bot was invited, with this state of the room (stripped events).
    fn invited(&self, room: &RoomId, state: &[serde_json::Value]);
    /// This happened in a room, or is so now.
    async fn told(
        &self,
        room: &RoomId,
        event: &serde_json::Value,
        cancel: &CancellationToken,
    ) -> Result<(), Stop>;
    /// Whether the selection leaves the room out, so that nothing of it is recorded but what the bot itself does there.
    fn ignores(&self, room: &RoomId) -> bool;
    /// Whether the homeserver sent this event in its sender's name because the bot asked for it.
    async fn is_ours(
        &self,
        room: &RoomId,
        event: &serde_json::Value,
        cancel: &CancellationToken,
    ) -> Result<bool, Stop>;
}

/// Nobody brings the bot into rooms: for tests of capture alone.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoPresence;

#[async_trait]
impl Presence for NoPresence {
    fn invited(&self, _: &RoomId, _: &[serde_json::Value]) {}

    async fn told(&self, _: &RoomId, _: &serde_json::Value, _: &CancellationToken) -> Result<(), Stop> {
        Ok(())
    }

    fn ignores(&self, _: &RoomId) -> bool {
        false
    }

    async fn is_ours(&self, _: &RoomId, _: &serde_json::Value, _: &CancellationToken) -> Result<bool, Stop> {
        Ok(false)
    }
}
