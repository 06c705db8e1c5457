//! What a worker is told by its custom resource, and what it reports back.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{
    ids::{DeviceId, Localpart, ServerName},
    revision,
    selection::RoomSelection,
    trail::TrailPoint,
};

/// What to do about the time during which the bot was suspended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SuspendCapture {
    /// Leave it out; a record says from when to when.
    #[default]
    Skip,
    /// Fill it from the homeserver's history on resume; a record says so.
    CatchUp,
}

impl SuspendCapture {
    /// The name in the custom resource.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "Skip",
            Self::CatchUp => "CatchUp",
        }
    }
}

/// How much is kept of attachments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaMode {
    /// Name, type, size and a hash of the content, which is fetched for that and thrown away.
    Metadata,
    /// The content too.
    Content,
}

impl MediaMode {
    /// The name in the custom resource.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Metadata => "Metadata",
            Self::Content => "Content",
        }
    }
}

/// What is done about the attachments of messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaPolicy {
    /// How much is kept.
    pub mode: MediaMode,
    /// What is larger is not fetched.
    pub maximum_bytes: u64,
    /// The bucket that content is to go into ([`bucket_place`]); `None`: the database.
    pub place: Option<String>,
}

/// How a bucket, and the part of it that a bot uses, is named: in the annotation of its Secret, in
/// instructions, and in the rows that say where a content is.
pub fn bucket_place(endpoint: &str, name: &str, prefix: Option<&str>) -> String {
    let parts = [endpoint.trim_end_matches('/'), name, prefix.unwrap_or_default()];
    let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    parts.join("/")
}

/// The wishes of the custom resource, validated. Changes take effect without a restart.
#[expect(clippy::struct_excessive_bools, reason = "wishes that are independent of each other")]
#[derive(Debug, Clone)]
pub struct Instructions {
    /// `metadata.uid`: tells the lives of custom resources of one name apart. Empty where there is none.
    pub uid: String,
    /// `metadata.generation` they were read from.
    pub generation: i64,
    /// Mark of the specification as the API server has it ([`revision::mark`]); empty where there is none.
    pub mark: String,
    /// Server name of the homeserver.
    pub server_name: ServerName,
    /// Localpart of the bot.
    pub username: Localpart,
    /// Display name of the bot's account.
    pub display_name: String,
    /// Rooms to be in.
    pub rooms: RoomSelection,
    /// Stop the Matrix side.
    pub suspend: bool,
    /// What happens to the suspended time on resume.
    pub suspend_capture: SuspendCapture,
    /// What is done about attachments; `None`: nothing, only the messages that mention them are recorded.
    pub media: Option<MediaPolicy>,
    /// No invitations and repairs (annotation `ems.element.io/coverage-paused`).
    pub coverage_paused: bool,
    /// A person's decision to let the worker make keys, secret storage and backup anew after somebody
    /// replaced or deleted them (annotation `ems.element.io/repair-encryption`; any value that was
    /// not used before). Acted on once, and recorded.
    pub repair_encryption: Option<String>,
    /// What the worker logs (annotation `ems.element.io/log-filter`); empty: the default.
    pub log_filter: String,
    /// The custom resource is being deleted: drain the inbox, record the deletion, report `closed`.
    pub deleting: bool,
    /// When it is deleted, the bot leaves its rooms.
    pub leaves_rooms: bool,
    /// The furthest point of the trail that was ever reported: from the status or from the kept
    /// ConfigMap, whichever is further.
    pub promised: Option<TrailPoint>,
}

impl Instructions {
    /// Whether the bot leaves its rooms itself, room by room. The account of a suspended bot is locked, so that nobody
    /// can act in its name.
    pub fn leaves_in_order(&self) -> bool {
        self.deleting && self.leaves_rooms && !self.suspend
    }

    /// Names the state of the custom resource that they were read from, as the requests to change it do.
    pub fn change(&self) -> String {
        revision::name(&self.uid, self.generation, &self.mark)
    }
}

/// Three-valued state of one aspect; becomes a condition of the custom resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// `Some(true)`, `Some(false)`, or not known.
    pub ok: Option<bool>,
    /// `CamelCase`, from a closed set.
    pub reason: &'static str,
    /// What happened, to which object, and what to do; no secret and no message content.
    pub message: String,
}

impl Check {
    /// All is well.
    pub fn ok(reason: &'static str, message: impl Into<String>) -> Self {
        Self { ok: Some(true), reason, message: message.into() }
    }

    /// Something is wrong.
    pub fn failed(reason: &'static str, message: impl Into<String>) -> Self {
        Self { ok: Some(false), reason, message: message.into() }
    }

    /// Nothing can be said.
    pub fn unknown(reason: &'static str, message: impl Into<String>) -> Self {
        Self { ok: None, reason, message: message.into() }
    }
}

/// Every room of the server is in exactly one of these states.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoomTotals {
    /// The bot is joined with power 100.
    pub covered: u64,
    /// The bot is joined with less power, and nobody can give it more, by reason code.
    pub limited: BTreeMap<&'static str, u64>,
    /// The next step is planned or under way.
    pub pending: u64,
    /// Outside the selection, by reason code.
    pub excluded: BTreeMap<&'static str, u64>,
    /// Cannot be covered, by reason code.
    pub blocked: BTreeMap<&'static str, u64>,
    /// How fast the pending ones become fewer, while there are any.
    pub pace: Option<Pace>,
}

/// How fast rooms are settled, measured over the last minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Rooms a minute.
    pub per_minute: u64,
    /// Until none is pending, if it goes on like this.
    pub remaining_seconds: u64,
}

impl RoomTotals {
    /// All rooms of the server.
    pub fn total(&self) -> u64 {
        let by_reason = [&self.limited, &self.excluded, &self.blocked];
        self.covered + self.pending + by_reason.into_iter().flat_map(BTreeMap::values).sum::<u64>()
    }
}

/// How far the rooms' history is read: what was before the bot came, and what sync left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HistoryProgress {
    /// Parts of it that are still to be read.
    pub remaining: u64,
    /// Rooms that these are of.
    pub rooms: u64,
    /// Events that were read of it since the trail began.
    pub events: u64,
    /// While parts are to be read and each of them was begun: by the time that senders state, what is newer than this is
    /// read of all of them.
    pub reached: Option<Timestamp>,
}

/// What the worker says of itself; always its complete set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerReport {
    /// The generation that the report speaks of.
    pub generation: i64,
    /// Its device, once it has one.
    pub device_id: Option<DeviceId>,
    /// Condition `EncryptionReady`.
    pub encryption: Check,
    /// Condition `DatabaseReady`.
    pub database: Check,
    /// Condition `RoomsCovered`.
    pub rooms_covered: Check,
    /// Condition `Recording`.
    pub recording: Check,
    /// Condition `IntegrityVerified`.
    pub integrity: Check,
    /// Condition `SynapseModuleActive`.
    pub module: Check,
    /// Rooms by state.
    pub rooms: RoomTotals,
    /// How far the rooms' history is read, once that is known.
    pub history: Option<HistoryProgress>,
    /// Undecryptable events by reason.
    pub undecryptable: BTreeMap<String, u64>,
    /// Where the trail stands.
    pub trail: Option<TrailPoint>,
    /// The trail has its last record: the inbox is drained and the deletion recorded.
    pub closed: bool,
    /// The Matrix side is stopped because of `suspend`.
    pub suspended: bool,
}
