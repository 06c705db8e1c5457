//! What coverage makes the homeserver do, and how it is recorded.
//!
//! `make_room_admin` makes the homeserver send events in a local user's name: the room's timeline
//! shows "Alice invited the bot". In the trail the actor of such an event is the bot, and Alice is
//! the one on whose behalf. So that this holds after a crash at any point, the log hears of an act
//! twice:
//!
//! 1. [`ActLog::intend`] **before** the call. It must be durable when it returns, else the act is
//!    not done. A power-levels event of that time that raises the bot, or a membership event that
//!    invites it, in this room and by a local user, is to be taken for ours, whenever it is told.
//! 2. [`ActLog::outcome`] afterwards, with the events by identifier and sender as they stand in the
//!    room: also of an act that failed, since power can be written before the call fails. They are
//!    to be taken for ours whatever their time.
//!
//! An intent without an outcome (the process ended in between, or the outcome could not be stored)
//! stays true as it is: "asked for, result not known". The next look at the room goes by what is
//! there, so the act is neither lost nor blindly repeated. Acts by the bot itself (join, leave,
//! refuse, the direct-chat mark, the notice) are recorded in the same way; nobody else's name is used.
//!
//! Somebody who is brought back into a room for their power leaves again. Who that is must survive
//! a crash, so the log keeps it: the intention to bring them back notes it, and
//! [`ActLog::forget_recalled`] ends it once they are gone.

use async_trait::async_trait;

use super::planner::StepKind;
use crate::domain::RoomId;

/// One act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Act {
    /// Unique for ever: the start of the process in milliseconds since 1970, and a count.
    pub id: String,
    /// Where.
    pub room_id: RoomId,
    /// What.
    pub kind: StepKind,
    /// In whose name the homeserver is expected to act; the outcome says in whose it did.
    pub on_behalf_of: Option<String>,
    /// Whom it concerns: who is brought back into the room, leaves it again, or becomes an admin of it.
    pub person: Option<String>,
    /// Why: `coverage`, or a reason code: that of the obstacle that the act removes, or for which a
    /// room is left or refused.
    pub reason: &'static str,
}

/// An event that an act made the homeserver send in somebody else's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentEvent {
    /// The event.
    pub event_id: String,
    /// Its type.
    pub event_type: String,
    /// In whose name.
    pub sender: String,
}

/// How an act ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ActOutcome {
    /// The homeserver did it.
    Done {
        /// What it sent in a user's name.
        sent: Vec<SentEvent>,
    },
    /// The homeserver refused it, or it is not known whether it did it.
    Failed {
        /// Kind of the error.
        category: &'static str,
        /// What it sent in a user's name all the same.
        sent: Vec<SentEvent>,
    },
}

/// An act could not be recorded.
#[derive(Debug, thiserror::Error)]
#[error("act of coverage cannot be recorded")]
pub struct ActLogError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// Records acts; the worker's implementation writes them into the trail.
#[async_trait]
pub trait ActLog: Send + Sync {
    /// Makes the intention durable. On an error the act is not done, and tried again later.
    async fn intend(&self, act: &Act) -> Result<(), ActLogError>;
    /// Records how it ended. An error is logged; the act cannot be undone.
    async fn outcome(&self, act: &Act, outcome: &ActOutcome) -> Result<(), ActLogError>;
    /// Who was brought back into a room by an act, or was to be, and is not known to have left.
    fn recalled(&self, room: &RoomId) -> Option<String>;
    /// They have left.
    async fn forget_recalled(&self, room: &RoomId) -> Result<(), ActLogError>;
}
