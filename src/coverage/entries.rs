//! What the runner remembers of every room of the server.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use tokio::time::{Duration, Instant};

use super::{
    carry_out::{State, Visit, VisitError},
    memory::Memory,
    schedule::{Schedule, Slot},
};
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

/// Whether a room wants a visit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Want {
    /// Only as all rooms do now and then.
    Nothing,
    /// Something about it has changed, or a visit has to be repeated.
    Visit,
    /// Somebody is waiting for it: it was made just now, or something happened in it.
    VisitFirst,
}

/// One room.
#[derive(Debug)]
pub(super) struct Entry {
    pub listing: RoomListing,
    pub is_joined: bool,
    pub memory: Memory,
    pub state: State,
    in_flight: bool,
    want: Want,
    not_before: Instant,
    recheck_at: Instant,
    failures: u32,
    repairs: u32,
    repaired_at: Instant,
}

/// Every room, with who is next and how many there are of each kind kept up to date: a server has
/// many rooms, and the loop asks after every visit.
#[derive(Debug)]
pub(super) struct Entries {
    rooms: HashMap<RoomId, Entry>,
    schedule: Schedule,
    totals: RoomTotals,
    ignored: Arc<BTreeSet<RoomId>>,
    recheck: Duration,
    is_listed: bool,
}

fn delay(failures: u32) -> Duration {
    FIRST_DELAY.saturating_mul(2_u32.saturating_pow(failures.min(16))).min(LONGEST_DELAY)
}

impl Entries {
    pub(super) fn new(recheck: Duration) -> Self {
        Self {
            rooms: HashMap::new(),
            schedule: Schedule::default(),
            totals: RoomTotals::default(),
            ignored: Arc::default(),
            recheck,
            is_listed: false,
        }
    }

    pub(super) fn get(&self, room: &RoomId) -> Option<&Entry> {
        self.rooms.get(room)
    }

    /// Takes a fresh listing over; rooms that changed become due.
    pub(super) fn refresh(&mut self, listings: Vec<RoomListing>, joined: &HashSet<RoomId>, now: Instant) {
        let listed: HashSet<RoomId> = listings.iter().map(|listing| listing.room_id.clone()).collect();
        for listing in listings {
            let room = listing.room_id.clone();
            let is_joined = joined.contains(&room);
            if self.rooms.contains_key(&room) {
                self.change(&room, |entry| entry.renew(listing, is_joined, now));
            } else {
                let want = if self.is_listed { Want::VisitFirst } else { Want::Visit };
                let entry = Entry { want, ..Entry::new(listing, is_joined, now) };
                count(&mut self.totals, entry.state, 1);
                self.schedule.replace(&room, None, entry.slot());
                self.rooms.insert(room, entry);
            }
        }
        let is_gone = |(room, entry): &(&RoomId, &Entry)| !entry.in_flight && !listed.contains(*room);
        let gone: Vec<RoomId> = self.rooms.iter().filter(is_gone).map(|(room, _)| room.clone()).collect();
        for room in gone {
            if let Some(entry) = self.rooms.remove(&room) {
                count(&mut self.totals, entry.state, -1);
                self.schedule.replace(&room, entry.slot(), None);
                self.ignore(&room, false);
            }
        }
        self.is_listed = true;
    }

    /// Makes a room due now, whatever it waits for.
    pub(super) fn hint(&mut self, room: &RoomId, now: Instant) -> bool {
        let hinted = self.change(room, |entry| {
            entry.want = Want::VisitFirst;
            entry.memory.start_afresh();
            entry.not_before = entry.not_before.min(now + delay(entry.repairs.saturating_sub(FREE_REPAIRS)));
        });
        hinted.is_some()
    }

    /// Makes every room due: the wishes changed.
    pub(super) fn all_due(&mut self, now: Instant) {
        let rooms: Vec<RoomId> = self.rooms.keys().cloned().collect();
        for room in &rooms {
            self.change(room, |entry| {
                entry.want = entry.want.max(Want::Visit);
                entry.failures = 0;
                entry.memory.start_afresh();
                entry.not_before = now;
            });
        }
    }

    /// The earliest time at which a room can be visited.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.schedule.next()
    }

    /// Rooms to visit now, marked as being visited: first those that have just been made, or that
    /// something happened in.
    pub(super) fn take_due(&mut self, now: Instant, most: usize) -> Vec<RoomId> {
        let mut taken = Vec::new();
        while taken.len() < most
            && let Some(room) = self.schedule.first_due(now)
        {
            self.change(&room, |entry| {
                if entry.want == Want::Nothing {
                    // A look without an occasion starts afresh.
                    entry.memory.repeated = None;
                }
                entry.in_flight = true;
                entry.want = Want::Nothing;
            });
            taken.push(room);
        }
        taken
    }

    /// Takes the result of a visit over; whether the room is no longer pending after it.
    pub(super) fn visited(&mut self, room: &RoomId, visit: Visit, now: Instant) -> bool {
        let recheck = self.recheck;
        let settled = self.change(room, |entry| {
            let was_pending = entry.state == State::Pending;
            entry.visited(visit, now, recheck);
            was_pending && entry.state != State::Pending
        });
        settled.unwrap_or(false)
    }

    /// A visit that ended without a result.
    pub(super) fn abandoned(&mut self, room: &RoomId, now: Instant) {
        self.change(room, |entry| {
            entry.in_flight = false;
            entry.failures += 1;
            entry.want = entry.want.max(Want::Visit);
            entry.not_before = now + delay(entry.failures);
        });
    }

    pub(super) fn totals(&self) -> &RoomTotals {
        &self.totals
    }

    /// Rooms that the bot is in and that are excluded.
    pub(super) fn ignored(&self) -> &Arc<BTreeSet<RoomId>> {
        &self.ignored
    }

    /// The only way to change an entry: schedule, totals and the ignored ones follow.
    fn change<T>(&mut self, room: &RoomId, change: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        let entry = self.rooms.get_mut(room)?;
        let (slot, state) = (entry.slot(), entry.state);
        let result = change(entry);
        self.schedule.replace(room, slot, entry.slot());
        if entry.state != state {
            count(&mut self.totals, state, -1);
            count(&mut self.totals, entry.state, 1);
        }
        let is_ignored = entry.is_ignored();
        self.ignore(room, is_ignored);
        Some(result)
    }
}

impl Entries {
    fn ignore(&mut self, room: &RoomId, is_ignored: bool) {
        if self.ignored.contains(room) == is_ignored {
            return;
        }
        let ignored = Arc::make_mut(&mut self.ignored);
        let _ = if is_ignored { ignored.insert(room.clone()) } else { ignored.remove(room) };
    }
}

fn count(totals: &mut RoomTotals, state: State, by: i64) {
    let by_reason = |map: &mut BTreeMap<&'static str, u64>, reason: &'static str| {
        let number = map.entry(reason).or_default();
        *number = number.saturating_add_signed(by);
        if *number == 0 {
            map.remove(reason);
        }
    };
    match state {
        State::Pending => totals.pending = totals.pending.saturating_add_signed(by),
        State::Covered => totals.covered = totals.covered.saturating_add_signed(by),
        State::Limited(reason) => by_reason(&mut totals.limited, reason.as_str()),
        State::Excluded(reason) => by_reason(&mut totals.excluded, reason.as_str()),
        State::Blocked(reason) => by_reason(&mut totals.blocked, reason.as_str()),
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
            want: Want::Visit,
            not_before: now,
            recheck_at: now,
            failures: 0,
            repairs: 0,
            repaired_at: now,
        }
    }

    fn is_ignored(&self) -> bool {
        self.is_joined && matches!(self.state, State::Excluded(_))
    }

    /// When it is next, unless it is being visited.
    fn slot(&self) -> Option<Slot> {
        let rests = self.want == Want::Nothing;
        let at = if rests { self.recheck_at.max(self.not_before) } else { self.not_before };
        (!self.in_flight).then_some(Slot { at, is_urgent: self.want == Want::VisitFirst })
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
            self.want = self.want.max(Want::Visit);
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
            self.is_joined |= matches!(visit.state, State::Covered | State::Limited(_));
        }
        self.not_before = now + delay(self.repairs).saturating_sub(delay(FREE_REPAIRS));
        self.recheck_at = now + if visit.acted > 0 { SETTLING.min(recheck) } else { recheck };
        let again = match (&visit.error, self.state) {
            (Some(_), _) => true,
            // Being created as a rule: soon there will be power levels.
            (None, State::Blocked(reason)) => reason == super::planner::Obstacle::PowerLevelsMissing,
            (None, State::Pending) => visit.acted > 0,
            (None, State::Covered | State::Limited(_) | State::Excluded(_)) => false,
        };
        if again {
            self.failures += 1;
            self.want = self.want.max(Want::Visit);
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

#[cfg(test)]
mod tests;
