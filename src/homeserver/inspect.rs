//! What the admin API shows of accounts, sessions, media, reports and the homeserver itself.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, value::RawValue};

use super::Result;
use crate::domain::RoomId;

/// A page of rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Rows<T> {
    /// Its rows; those that cannot be read are left out.
    pub rows: Vec<T>,
    /// Where the next page begins; `None` after the last one.
    pub next: Option<u64>,
}

/// An account in the listing.
#[derive(Debug, Clone, PartialEq)]
pub struct AccountFacts {
    /// The user id; text, since accounts of old servers have ids that are not allowed any more.
    pub user: String,
    /// What is known of it, by the homeserver's own field names.
    pub facts: Map<String, Value>,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: Option<i64>,
    /// When one of its sessions was last used.
    pub last_seen_ms: Option<i64>,
}

/// A session (a device) of an account.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionFacts {
    /// The device.
    pub device: String,
    /// What its owner calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where it was last used from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// And with what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
}

/// A file that somebody uploaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaUpload {
    /// Its id on this homeserver.
    pub media: String,
    /// When, in milliseconds since 1970.
    pub created_ms: i64,
    /// Content type as claimed.
    pub content_type: Option<String>,
    /// Bytes.
    pub length: Option<i64>,
    /// File name.
    pub name: Option<String>,
    /// The homeserver made it itself, as a preview of a web page that the user's client asked for.
    pub is_preview: bool,
}

/// Somebody put media into quarantine, or took it out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantineChange {
    /// The homeserver whose media it is.
    pub origin: String,
    /// The media id there.
    pub media: String,
    /// It is in quarantine now.
    pub quarantined: bool,
}

/// A report of an event or of a user to the homeserver's administrators.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Its number; grows.
    pub id: i64,
    /// When, in milliseconds since 1970.
    pub received_ms: Option<i64>,
    /// Who reported.
    pub reporter: String,
    /// Why.
    pub reason: Option<String>,
    /// The room of the reported event.
    pub room: Option<String>,
    /// The reported event.
    pub event: Option<String>,
    /// Who is reported.
    pub reported: Option<String>,
    /// As the homeserver told it.
    pub raw: Value,
}

/// What the homeserver says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerFacts {
    /// Version of its software.
    pub version: String,
    /// Versions of the client-server API that it speaks.
    pub api_versions: Vec<String>,
    /// Its optional features, on or off.
    pub features: BTreeMap<String, bool>,
    /// Whether background updates may run.
    pub background_updates: bool,
    /// Background updates that run, by database.
    pub running_updates: BTreeMap<String, String>,
}

/// What the module `synapse-ems-bots` in the homeserver says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModuleFacts {
    /// Its version.
    pub version: String,
    /// False where it does not know the homeserver's inside.
    pub active: bool,
    /// The bots that it puts into rooms, with `rooms` as it was configured.
    pub bots: BTreeMap<String, Value>,
}

/// A page of a room's history, whoever may see it.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// Its events as JSON texts, newest first.
    pub events: Vec<Box<RawValue>>,
    /// Where the next page begins.
    pub end: Option<String>,
}

/// What a server admin's token can see. Nothing is changed by any of these calls.
#[async_trait]
pub trait Inspect: Send + Sync {
    /// Every account, oldest first: deactivated ones, locked ones and guests too.
    async fn accounts(&self, from: u64) -> Result<Rows<AccountFacts>>;
    /// What the listing does not show of an account.
    async fn account(&self, user: &str) -> Result<Option<Map<String, Value>>>;
    /// Its sessions.
    async fn sessions(&self, user: &str) -> Result<Option<Vec<SessionFacts>>>;
    /// Users who uploaded anything since then, in milliseconds since 1970.
    async fn uploaders(&self, since_ms: i64, from: u64) -> Result<Rows<String>>;
    /// What a user uploaded, newest first; nothing of accounts that the admin API does not know, as those of bridges.
    async fn uploads(&self, user: &str, from: u64) -> Result<Rows<MediaUpload>>;
    /// Changes of the quarantine after this position, and the position after them.
    async fn quarantine(&self, after: u64) -> Result<(Vec<QuarantineChange>, u64)>;
    /// Reports of events, newest first.
    async fn event_reports(&self, from: u64) -> Result<Rows<Report>>;
    /// Reports of users, newest first.
    async fn user_reports(&self, from: u64) -> Result<Rows<Report>>;
    /// A page of a room's history from a token of sync backwards; also of what the bot may not see.
    /// With `to`, another token: only what the homeserver received after it. At most `limit` events.
    async fn history(&self, room: &RoomId, from: &str, to: Option<&str>, limit: u16) -> Result<History>;
    /// The homeserver itself.
    async fn server(&self) -> Result<ServerFacts>;
    /// The module that puts bots into new rooms; `None` if there is none.
    async fn module(&self) -> Result<Option<ModuleFacts>>;
}
