//! What the runner remembers of every room of the server.

use std::collections::{HashMap, HashSet};

use tokio::time::{Duration, Instant};

use super::carry_out::{Memory, State, Visit, VisitError};
use crate::{
    domain::{RoomId, worker::RoomTotals},
    homeserver::{HomeserverError, RoomListing},
};

const FIRST_DELAY: Duration = Duration::from_millis(250);
const LONGEST_DELAY: Duration = Duration::from_mins(10);
/// After acting, a room is looked at again: two bots that act at the same moment can undo each
/// other's power or mark, and neither is told.
const SETTLING: Duration = Duration::from_secs(5);
/// So many repairs of a room within [`LONGEST_DELAY`] are made at once; further ones wait.
const FREE_REPAIRS: u32 = 5;

/// One room.
#[derive(Debug)]
pub(super) struct Entry {
    pub listing: RoomListing,
    pub is_joined: bool,
    pub memory: Memory,
    pub state: State,
    in_flight: bool,
    is_due: bool,
    not_before: Instant,
    recheck_at: Instant,
    failures: u32,
    repairs: u32,
    repaired_at: Instant,
}

/// Every room.
#[derive(Debug)]
pub(super) struct Entries {
    rooms: HashMap<RoomId, Entry>,
    recheck: Duration,
}

fn delay(failures: u32) -> Duration {
    FIRST_DELAY.saturating_mul(2_u32.saturating_pow(failures.min(16))).min(LONGEST_DELAY)
}

impl Entries {
    pub(super) fn new(recheck: Duration) -> Self {
        Self { rooms: HashMap::new(), recheck }
    }

    pub(super) fn get(&self, room: &RoomId) -> Option<&Entry> {
        self.rooms.get(room)
    }

    /// Takes a fresh listing over; rooms that changed become due.
    pub(super) fn refresh(&mut self, listings: Vec<RoomListing>, joined: &HashSet<RoomId>, now: Instant) {
        let mut listed = HashSet::with_capacity(listings.len());
        for listing in listings {
            let room = listing.room_id.clone();
            let is_joined = joined.contains(&room);
            listed.insert(room.clone());
            match self.rooms.get_mut(&room) {
                Some(entry) => entry.renew(listing, is_joined, now),
                None => {
                    self.rooms.insert(room, Entry::new(listing, is_joined, now));
                }
            }
        }
        self.rooms.retain(|room, entry| entry.in_flight || listed.contains(room));
    }

    /// Makes a room due now, whatever it waits for.
    pub(super) fn hint(&mut self, room: &RoomId, now: Instant) -> bool {
        let Some(entry) = self.rooms.get_mut(room) else { return false };
        entry.is_due = true;
        entry.memory.repeated = None;
        entry.not_before = entry.not_before.min(now + delay(entry.repairs.saturating_sub(FREE_REPAIRS)));
        true
    }

    /// Makes every room due: the wishes changed.
    pub(super) fn all_due(&mut self, now: Instant) {
        for entry in self.rooms.values_mut() {
            entry.is_due = true;
            entry.failures = 0;
            entry.memory.repeated = None;
            entry.not_before = now;
        }
    }

    /// The earliest time at which a room can be visited.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.rooms.values().filter(|entry| !entry.in_flight).map(Entry::due_at).min()
    }

    /// Rooms to visit now, marked as being visited.
    pub(super) fn take_due(&mut self, now: Instant, most: usize) -> Vec<RoomId> {
        let mut taken = Vec::new();
        for (room, entry) in &mut self.rooms {
            if taken.len() == most {
                break;
            }
            if entry.in_flight || entry.due_at() > now {
                continue;
            }
            if !entry.is_due {
                // A look without an occasion starts afresh.
                entry.memory.repeated = None;
            }
            entry.in_flight = true;
            entry.is_due = false;
            taken.push(room.clone());
        }
        taken
    }

    /// Takes the result of a visit over.
    pub(super) fn visited(&mut self, room: &RoomId, visit: Visit, now: Instant) {
        let recheck = self.recheck;
        if let Some(entry) = self.rooms.get_mut(room) {
            entry.visited(visit, now, recheck);
        }
    }

    /// A visit that ended without a result.
    pub(super) fn abandoned(&mut self, room: &RoomId, now: Instant) {
        if let Some(entry) = self.rooms.get_mut(room) {
            entry.in_flight = false;
            entry.failures += 1;
            entry.is_due = true;
            entry.not_before = now + delay(entry.failures);
        }
    }

    pub(super) fn totals(&self) -> RoomTotals {
        let mut totals = RoomTotals::default();
        for entry in self.rooms.values() {
            match entry.state {
                State::Pending => totals.pending += 1,
                State::Covered => totals.covered += 1,
                State::Excluded(reason) => *totals.excluded.entry(reason.as_str()).or_default() += 1,
                State::Blocked(reason) => *totals.blocked.entry(reason.as_str()).or_default() += 1,
            }
        }
        totals
    }
}

impl Entry {
    fn new(listing: RoomListing, is_joined: bool, now: Instant) -> Self {
        Self {
            listing,
            is_joined,
            memory: Memory::default(),
            state: State::Pending,
            in_flight: false,
            is_due: true,
            not_before: now,
            recheck_at: now,
            failures: 0,
            repairs: 0,
            repaired_at: now,
        }
    }

    fn due_at(&self) -> Instant {
        if self.is_due { self.not_before } else { self.recheck_at.max(self.not_before) }
    }

    fn renew(&mut self, listing: RoomListing, is_joined: bool, now: Instant) {
        let changed = listing.state_events != self.listing.state_events
            || listing.join_rules != self.listing.join_rules
            || is_joined != self.is_joined
            || (self.state != State::Covered
                && listing.joined_local_members != self.listing.joined_local_members);
        self.listing = listing;
        self.is_joined = is_joined;
        if changed {
            self.is_due = true;
            // What failed before may go now; what is being fought over still waits.
            if self.repairs <= FREE_REPAIRS && !matches!(self.state, State::Pending) {
                self.not_before = self.not_before.min(now);
            }
        }
    }

    fn visited(&mut self, visit: Visit, now: Instant, recheck: Duration) {
        self.in_flight = false;
        self.memory = visit.memory;
        if visit.error.is_none() || matches!(visit.state, State::Blocked(_)) {
            self.state = visit.state;
        }
        if visit.acted > 0 && visit.error.is_none() {
            let recent = now.duration_since(self.repaired_at) < LONGEST_DELAY;
            self.repairs = if recent { self.repairs + 1 } else { 1 };
            self.repaired_at = now;
            self.is_joined = visit.state == State::Covered || self.is_joined;
        }
        self.not_before = now + delay(self.repairs).saturating_sub(delay(FREE_REPAIRS));
        self.recheck_at = now + if visit.acted > 0 { SETTLING.min(recheck) } else { recheck };
        let again = match (&visit.error, self.state) {
            (Some(_), _) => true,
            // Being created as a rule: soon there will be power levels.
            (None, State::Blocked(reason)) => reason == super::planner::Obstacle::PowerLevelsMissing,
            (None, State::Pending) => visit.acted > 0,
            (None, State::Covered | State::Excluded(_)) => false,
        };
        if again {
            self.failures += 1;
            self.is_due = true;
            self.not_before = self.not_before.max(now + wait(visit.error.as_ref(), self.failures));
        } else {
            self.failures = 0;
        }
    }
}

fn wait(error: Option<&VisitError>, failures: u32) -> Duration {
    match error {
        Some(VisitError::Homeserver(HomeserverError::RateLimited { retry_after: Some(after), .. })) => {
            (*after).min(LONGEST_DELAY)
        }
        _ => delay(failures.saturating_sub(1)),
    }
}
