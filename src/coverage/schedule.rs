//! Which room is next.

use std::collections::BTreeSet;

use tokio::time::Instant;

use crate::domain::RoomId;

/// When a room is next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    pub at: Instant,
    /// Goes before those that are not.
    pub is_urgent: bool,
}

/// Rooms by the time from which they may be visited.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    urgent: BTreeSet<(Instant, RoomId)>,
    ordinary: BTreeSet<(Instant, RoomId)>,
}

impl Schedule {
    /// Moves a room from one slot to another, out of or into the schedule.
    pub(super) fn replace(&mut self, room: &RoomId, old: Option<Slot>, new: Option<Slot>) {
        if old == new {
            return;
        }
        if let Some(slot) = old {
            self.of(slot).remove(&(slot.at, room.clone()));
        }
        if let Some(slot) = new {
            self.of(slot).insert((slot.at, room.clone()));
        }
    }

    fn of(&mut self, slot: Slot) -> &mut BTreeSet<(Instant, RoomId)> {
        if slot.is_urgent { &mut self.urgent } else { &mut self.ordinary }
    }

    /// The earliest time of all.
    pub(super) fn next(&self) -> Option<Instant> {
        let first = [self.urgent.first(), self.ordinary.first()];
        first.into_iter().flatten().map(|(at, _)| *at).min()
    }

    /// The room to visit at this time.
    pub(super) fn first_due(&self, now: Instant) -> Option<RoomId> {
        let first = [self.urgent.first(), self.ordinary.first()];
        first.into_iter().flatten().find(|(at, _)| *at <= now).map(|(_, room)| room.clone())
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.urgent.len() + self.ordinary.len()
    }
}
