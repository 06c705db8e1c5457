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

/// A room to visit now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Due {
    pub room: RoomId,
    pub is_urgent: bool,
}

/// How many visits may begin: to urgent rooms and to others. Neither takes from what the other has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Free {
    pub urgent: usize,
    pub ordinary: usize,
}

impl Free {
    /// One has begun.
    pub(super) fn take(&mut self, is_urgent: bool) {
        let number = if is_urgent { &mut self.urgent } else { &mut self.ordinary };
        *number = number.saturating_sub(1);
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
        let urgent = self.urgent.first().filter(|_| free.urgent > 0);
        let ordinary = self.ordinary.first().filter(|_| free.ordinary > 0);
        [urgent, ordinary].into_iter().flatten().map(|(at, _)| *at).min()
    }

    /// The room to visit at this time.
    pub(super) fn first_due(&self, now: Instant, free: Free) -> Option<Due> {
        let first = |rooms: &BTreeSet<(Instant, RoomId)>, is_urgent| {
            let (at, room) = rooms.first()?;
            (*at <= now).then(|| Due { room: room.clone(), is_urgent })
        };
        let urgent = first(&self.urgent, true).filter(|_| free.urgent > 0);
        urgent.or_else(|| first(&self.ordinary, false).filter(|_| free.ordinary > 0))
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.urgent.len() + self.ordinary.len()
    }
}
