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

/// How many visits may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Free {
    /// As long as the room is an urgent one.
    pub for_urgent: usize,
    /// Whatever the room is.
    pub for_ordinary: usize,
}

impl Free {
    /// After so many more have begun.
    pub(super) fn after(self, begun: usize) -> Self {
        let Self { for_urgent, for_ordinary } = self;
        Self {
            for_urgent: for_urgent.saturating_sub(begun),
            for_ordinary: for_ordinary.saturating_sub(begun),
        }
    }
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

    /// The earliest time at which a visit can begin.
    pub(super) fn next(&self, free: Free) -> Option<Instant> {
        self.first(free).map(|(at, _)| *at).min()
    }

    /// The room to visit at this time.
    pub(super) fn first_due(&self, now: Instant, free: Free) -> Option<RoomId> {
        self.first(free).find(|(at, _)| *at <= now).map(|(_, room)| room.clone())
    }

    /// Those that are first among the urgent and the ordinary rooms.
    fn first(&self, free: Free) -> impl Iterator<Item = &(Instant, RoomId)> {
        let urgent = self.urgent.first().filter(|_| free.for_urgent > 0);
        let ordinary = self.ordinary.first().filter(|_| free.for_ordinary > 0);
        [urgent, ordinary].into_iter().flatten()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.urgent.len() + self.ordinary.len()
    }
}
