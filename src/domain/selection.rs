//! Which rooms a bot belongs in, as the custom resource's `spec.rooms` says it.

use std::time::Duration;

use super::ids::{RoomId, UserId};

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
