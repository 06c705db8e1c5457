//! Where a bot stands in the rooms of its homeserver, for whoever asks.

use jiff::Timestamp;

use super::ids::RoomId;

/// Every room of a homeserver is in exactly one of these states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RoomState {
    /// Was not looked at yet, or something is being done.
    Pending,
    /// The bot is in, with an admin's power.
    Covered,
    /// The bot is in, with less power, and nobody can give it more.
    Limited,
    /// Outside the selection.
    Excluded,
    /// The bot cannot be brought in.
    Blocked,
}

impl RoomState {
    /// Every state.
    pub const ALL: [Self; 5] = [Self::Pending, Self::Covered, Self::Limited, Self::Excluded, Self::Blocked];

    /// The word for it: in the status, in metrics, in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Covered => "covered",
            Self::Limited => "limited",
            Self::Excluded => "excluded",
            Self::Blocked => "blocked",
        }
    }

    /// The state with this word.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// The wishes for a room and what is listed of it, as one number: where it is the same, nothing of that has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestMark(pub i64);

/// What is noted of a room, so that people can ask and the next process of the worker knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomNote {
    /// The room.
    pub room_id: RoomId,
    /// Its name, unless the selection leaves it out: of such a room nothing is kept but that it is there.
    pub name: Option<String>,
    /// Where the bot stands.
    pub state: RoomState,
    /// Why, as a code; see `docs/coverage.md`.
    pub reason: Option<String>,
    /// Since when, as far as the worker saw it.
    pub since: Timestamp,
    /// The bot has said what it is, or did not have to.
    pub is_greeted: bool,
    /// The bot was seen among the functional members; a person who takes it out has their way.
    pub was_functional_member: bool,
    /// Set where there was nothing to do when the process ended that wrote the note: what was so then.
    pub rests_as: Option<RestMark>,
}

/// Which notes are asked for; what is `None` does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoomFilter {
    /// Of this room.
    pub room: Option<RoomId>,
    /// In this state.
    pub state: Option<RoomState>,
    /// For this reason.
    pub reason: Option<String>,
}
