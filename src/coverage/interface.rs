//! What goes into the loop and what comes out of it.

use std::{collections::BTreeSet, sync::Arc};

use tokio::time::{Duration, Instant};

use super::planner::Invitation;
use crate::domain::{RoomId, selection::RoomSelection, worker::RoomTotals};

/// How the loop runs.
#[derive(Debug, Clone)]
pub struct RunnerSettings {
    /// Time between two looks at the number of rooms, which tells that there is a new one. Longer when the homeserver is
    /// slow, so that these looks take about a tenth of its time at most.
    pub probe: Duration,
    /// Time between two listings of all rooms, which tell what else changed without a hint. Longer when the homeserver is
    /// slow, so that they take about a twentieth of its time at most.
    pub poll: Duration,
    /// A room without any sign of change is looked at again after this.
    pub recheck: Duration,
    /// Rooms visited at once, and as many beside them that somebody waits for. More than a few gain nothing: Synapse handles
    /// them one after another.
    pub concurrency: usize,
    /// Visits that begin in a second, besides those to rooms that somebody waits for. A quick homeserver has other things to
    /// do, too, than to be looked at: covering rooms never comes near it.
    pub visits_a_second: u32,
}

impl Default for RunnerSettings {
    fn default() -> Self {
        Self {
            probe: Duration::from_millis(300),
            poll: Duration::from_secs(5),
            recheck: Duration::from_mins(10),
            concurrency: 4,
            visits_a_second: 100,
        }
    }
}

/// The wishes of the custom resource; a change takes effect at once.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Control {
    /// Rooms to be in.
    pub selection: RoomSelection,
    /// Look, but do not act.
    pub paused: bool,
}

/// What the bot's own sync saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hint {
    /// The bot lost its place or its power in a room, or may have to record nothing of it any more: at once.
    Room(RoomId),
    /// Something else changed that decides what the bot is to do in a room.
    Changed(RoomId),
    /// The bot is in a room: news where it was not known to be.
    Joined(RoomId),
    /// The bot was invited, as this tells.
    Invited(RoomId, Invitation),
}

/// Why coverage stands still.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Kind of the error.
    pub category: &'static str,
    /// What happened, without secrets.
    pub message: String,
}

/// What the loop says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CoverageState {
    /// Every room that was there at the start has been looked at, or is believed to be as an earlier process left it.
    pub is_complete: bool,
    /// Rooms by state.
    pub totals: RoomTotals,
    /// Since when a room is pending that is so for the longest time.
    pub oldest_pending: Option<Instant>,
    /// Rooms that the bot is in and that the selection leaves out: nothing of them is recorded.
    pub ignored: Arc<BTreeSet<RoomId>>,
    /// Set while the homeserver does not let us work.
    pub problem: Option<Problem>,
}
