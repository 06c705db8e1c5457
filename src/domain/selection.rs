//! Which rooms a bot belongs in, as the custom resource's `spec.rooms` says it.

use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{
    ids::{RoomId, UserId},
    room::RestMark,
};

/// Which of the rooms that it is in a bot leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Leave {
    /// None; of those outside the selection it records nothing.
    #[default]
    Nothing,
    /// Those that fall out of the selection.
    Excluded,
    /// All of them, for good: it is being removed. No wish of `spec.rooms`.
    Everything {
        /// For now not those in which the only other admins are bots that may be leaving, too, and go first.
        patient: bool,
    },
}

/// The selection, parsed and validated.
#[derive(Debug, Clone)]
pub struct RoomSelection {
    /// Also in direct chats.
    pub direct_messages: bool,
    /// Only rooms that were created on this homeserver.
    pub local_only: bool,
    /// Never in these.
    pub deny: Vec<RoomId>,
    /// If not empty: only in these.
    pub only: Vec<RoomId>,
    /// Never in a direct chat of these people.
    pub exclude_users: Vec<UserId>,
    /// Never in these spaces nor in a room below them.
    pub exclude_spaces: Vec<RoomId>,
    /// If set: only rooms whose creator's user id matches.
    pub creator_pattern: Option<regex::Regex>,
    /// If set: only rooms with activity within this time.
    pub minimum_last_active: Option<Duration>,
    /// What becomes of rooms that the bot is in.
    pub leave: Leave,
    /// If set: posted once in each room that the bot joins.
    pub notice: Option<String>,
}

/// Tells wishes apart, from one process to the next: the same ones have the same mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WishMark([u8; 32]);

impl WishMark {
    /// What makes a mark of these wishes for something of which this is listed.
    pub fn with(self, listed: &str) -> RestMark {
        let mut hash = Sha256::new();
        hash.update(self.0);
        hash.update(listed);
        let mut first = [0; 8];
        first.copy_from_slice(&hash.finalize()[..8]);
        RestMark(i64::from_be_bytes(first))
    }
}

impl RoomSelection {
    /// Whether it says something of single rooms or spaces.
    pub fn names_rooms(&self) -> bool {
        !(self.deny.is_empty() && self.only.is_empty() && self.exclude_spaces.is_empty())
    }

    /// Whether it leaves out direct chats, all or somebody's.
    pub fn leaves_out_chats(&self) -> bool {
        !self.direct_messages || !self.exclude_users.is_empty()
    }

    /// The selection as `spec.rooms` has it.
    pub fn to_json(&self) -> Value {
        let texts = |ids: Vec<String>| Value::from(ids);
        json!({
            "directMessages": self.direct_messages,
            "localOnly": self.local_only,
            "deny": texts(self.deny.iter().map(ToString::to_string).collect()),
            "only": texts(self.only.iter().map(ToString::to_string).collect()),
            "excludeUsers": texts(self.exclude_users.iter().map(ToString::to_string).collect()),
            "excludeSpaces": texts(self.exclude_spaces.iter().map(ToString::to_string).collect()),
            "creatorPattern": self.creator_pattern.as_ref().map(ToString::to_string),
            "minimumLastActiveSeconds": self.minimum_last_active.map(|time| time.as_secs()),
            "leaveExcluded": self.leave != Leave::Nothing,
            "notice": self.notice,
        })
    }

    /// The mark of these wishes for the rooms of a bot.
    pub fn mark(&self, bot: &UserId) -> WishMark {
        let leaves = match self.leave {
            Leave::Nothing => 0,
            Leave::Excluded => 1,
            Leave::Everything { patient: true } => 2,
            Leave::Everything { patient: false } => 3,
        };
        let text = json!([bot.as_str(), leaves, self.to_json()]).to_string();
        WishMark(Sha256::digest(text).into())
    }
}

/// Two patterns are equal when their texts are.
impl PartialEq for RoomSelection {
    fn eq(&self, other: &Self) -> bool {
        self.leave == other.leave && self.to_json() == other.to_json()
    }
}

impl Default for RoomSelection {
    fn default() -> Self {
        Self {
            direct_messages: true,
            local_only: true,
            deny: Vec::new(),
            only: Vec::new(),
            exclude_users: Vec::new(),
            exclude_spaces: Vec::new(),
            creator_pattern: None,
            minimum_last_active: None,
            leave: Leave::Nothing,
            notice: None,
        }
    }
}
