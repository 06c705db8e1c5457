//! What both kinds have in common.

mod database;
mod element_web;
mod homeserver;
mod refs;
mod rooms;
pub(crate) mod rules;
mod status;
mod worker;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use database::{DEFAULT_DATABASE_SECRET, DatabaseSpec};
pub use element_web::ElementWebSpec;
pub use homeserver::{
    AdminApi, AdminApiSpec, DEFAULT_HOMESERVER_SECRET, DEFAULT_HOMESERVER_SECRET_KEY, HomeserverSpec,
    MasSpec, Plan,
};
pub use refs::{CaSecretRef, RoleRef, SecretKeyRef, SecretRef};
pub use rooms::RoomsSpec;
pub use status::{BackupPhraseStatus, BotStatus, HistoryStatus, RoomsStatus, TrailStatus};
pub use worker::{ProxySpec, ResourceAmounts, SchedulingSpec, StorageSpec, WorkerResources, WorkerSpec};

/// What happens to the time during which the bot is suspended.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SuspendCapture {
    /// It is left out; a record says from when to when.
    #[default]
    Skip,
    /// It is filled from the homeserver's history on resume; a record says so.
    CatchUp,
}

/// What happens on the homeserver when the bot is deleted.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeletionPolicy {
    /// Nothing: a bot that is created anew goes on where this one stopped.
    #[default]
    Retain,
    /// The bot leaves every room; its account stays.
    LeaveRooms,
    /// The bot's account is deactivated, which destroys its key backup.
    Deactivate,
}
