//! `status`, the same for both kinds.
//!
//! Two field managers write it: the worker `deviceID`, `rooms`, `history`, `undecryptable`, `trail` and its
//! conditions; the operator everything else. Each always applies its complete set, so the worker
//! must repeat the `trail` that it found there until it has a further one.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{refs::SecretRef, rules};
use crate::domain::{
    trail::TrailPoint,
    worker::{HistoryProgress, RoomTotals},
};

/// What is known of the bot.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct BotStatus {
    /// Generation of the specification that the operator has last acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// `Ready` and what it is made of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// User ID of the bot.
    #[serde(rename = "userID", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub user_id: Option<String>,
    /// The bot's device.
    #[serde(rename = "deviceID", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub device_id: Option<String>,
    /// User ID of the admin account with which the worker brings the bot into rooms.
    #[serde(rename = "adminUserID", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub admin_user_id: Option<String>,
    /// Where the Secure Backup Phrase is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_phrase: Option<BackupPhraseStatus>,
    /// Where people sign in as the bot.
    #[serde(rename = "loginURL", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub login_url: Option<String>,
    /// Rooms of the homeserver by state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rooms: Option<RoomsStatus>,
    /// How far the history of rooms is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<HistoryStatus>,
    /// Number of messages that could not be decrypted yet, by reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub undecryptable: BTreeMap<String, i64>,
    /// Where the audit trail stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trail: Option<TrailStatus>,
}

/// Where the Secure Backup Phrase is kept.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct BackupPhraseStatus {
    /// Secret with the key `phrase`.
    pub secret_ref: SecretRef,
}

/// Every room of the homeserver is counted once.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct RoomsStatus {
    /// Rooms that the bot is in, with an admin's power.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub covered: i64,
    /// Rooms that the bot is in with less power than an admin's, by the reason why it has no more.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub limited: BTreeMap<String, i64>,
    /// Rooms that the bot is about to join or to repair.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub pending: i64,
    /// Rooms outside the selection, by reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub excluded: BTreeMap<String, i64>,
    /// Rooms that cannot be covered, by reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub blocked: BTreeMap<String, i64>,
    /// All rooms.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub total: i64,
    /// While rooms are pending: how many were settled in the last minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub per_minute: Option<i64>,
    /// While rooms are pending: in how many seconds none is any more, if it goes on like this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub remaining_seconds: Option<i64>,
}

/// How far the history of rooms is read: what was said before the bot came, and what happened while it could not listen.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct HistoryStatus {
    /// Parts of rooms' history that are still to be read; 0: all of it is read.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub remaining: i64,
    /// Rooms that these parts are of.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub rooms: i64,
    /// Events that were read of the history since the trail began.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub events: i64,
    /// While parts are to be read and each of them was begun: by the time that senders state, of all of them what is newer
    /// than this is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub reached: Option<String>,
}

/// Where the audit trail stands: a promise that is checked against the database at every start.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::trail_grows())]
pub struct TrailStatus {
    /// Counts the decisions to go on after the database was behind or different.
    #[schemars(range(min = 1))]
    pub epoch: i64,
    /// Number of records.
    #[schemars(range(min = 0))]
    pub size: i64,
    /// Hash over all records, 64 hexadecimal digits.
    #[schemars(length(equal = 64), regex(pattern = "^[0-9a-f]{64}$"))]
    pub root_hash: String,
    /// The newest signed checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub checkpoint: Option<String>,
    /// The key that it is signed with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub public_key: Option<String>,
    /// The trail has its last record: the bot's deletion is recorded and nothing more will come.
    #[serde(default)]
    pub closed: bool,
}

impl TrailStatus {
    /// The status of a trail that stands at this point; not signed, not closed.
    pub fn at(point: &TrailPoint) -> Self {
        Self {
            epoch: point.epoch,
            size: point.size,
            root_hash: point.root_hash.clone(),
            checkpoint: None,
            public_key: None,
            closed: false,
        }
    }

    /// Epoch, size and root hash.
    pub fn point(&self) -> TrailPoint {
        TrailPoint { epoch: self.epoch, size: self.size, root_hash: self.root_hash.clone() }
    }
}

impl From<&RoomTotals> for RoomsStatus {
    fn from(totals: &RoomTotals) -> Self {
        let counts = |map: &BTreeMap<&'static str, u64>| {
            map.iter().map(|(reason, count)| ((*reason).to_owned(), saturate(*count))).collect()
        };
        Self {
            covered: saturate(totals.covered),
            pending: saturate(totals.pending),
            limited: counts(&totals.limited),
            excluded: counts(&totals.excluded),
            blocked: counts(&totals.blocked),
            total: saturate(totals.total()),
            per_minute: totals.pace.map(|pace| saturate(pace.per_minute)),
            remaining_seconds: totals.pace.map(|pace| saturate(pace.remaining_seconds)),
        }
    }
}

impl From<HistoryProgress> for HistoryStatus {
    fn from(progress: HistoryProgress) -> Self {
        Self {
            remaining: saturate(progress.remaining),
            rooms: saturate(progress.rooms),
            events: saturate(progress.events),
            reached: progress.reached.map(|at| format!("{at:.0}")),
        }
    }
}

fn saturate(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::worker::Pace;

    #[test]
    fn rooms_are_counted_by_reason_and_say_how_long_the_rest_takes() {
        let mut totals = RoomTotals {
            covered: 5,
            pending: 40,
            blocked: BTreeMap::from([("banned", 2)]),
            pace: Some(Pace { per_minute: 120, remaining_seconds: 20 }),
            ..RoomTotals::default()
        };
        let shown = serde_json::to_value(RoomsStatus::from(&totals)).unwrap();
        assert_eq!((&shown["perMinute"], &shown["remainingSeconds"]), (&json!(120), &json!(20)));
        assert_eq!((&shown["total"], &shown["blocked"]), (&json!(47), &json!({"banned": 2})));
        totals.pace = None;
        let shown = serde_json::to_value(RoomsStatus::from(&totals)).unwrap();
        assert!(shown.get("perMinute").is_none() && shown.get("remainingSeconds").is_none(), "{shown}");
    }
}
