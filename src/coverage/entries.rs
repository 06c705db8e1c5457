//! What the runner remembers of every room of the server.

mod entry;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use jiff::Timestamp;
use tokio::time::{Duration, Instant};

use self::entry::{Belief, Entry};
use super::{
    book::{Changes, MOST},
    carry_out::{State, Visit},
    schedule::{Due, Free, Schedule},
};
use crate::{
    domain::{RoomId, room::RoomNote, selection::WishMark, worker::RoomTotals},
    homeserver::RoomListing,
};

/// Every room, with who is next and how many there are of each kind kept up to date: a server has
/// many rooms, and the loop asks after every visit.
#[derive(Debug)]
pub(super) struct Entries {
    rooms: HashMap<RoomId, Entry>,
    schedule: Schedule,
    /// Pending rooms by the time since which they are.
    pending: BTreeSet<(Instant, RoomId)>,
    totals: RoomTotals,
    ignored: Arc<BTreeSet<RoomId>>,
    recheck: Duration,
    /// When the rooms of the homeserver were listed first.
    listed_at: Option<Instant>,
    /// What an earlier process noted of rooms that were not listed yet.
    remembered: HashMap<RoomId, RoomNote>,
    /// The process that noted it has ended in order, a short while ago.
    is_believed: bool,
    /// No earlier process has noted anything.
    is_first: bool,
    /// Rooms of which the book says something else.
    unnoted: BTreeSet<RoomId>,
    /// Rooms that are in the book and no longer there.
    gone: BTreeSet<RoomId>,
    /// Notes to be written of rooms that were never listed.
    unlooked: Vec<RoomNote>,
}

/// All rooms, as the homeserver listed them.
pub(super) struct Listed {
    pub rooms: Vec<RoomListing>,
    /// Those that the bot is in.
    pub joined: HashSet<RoomId>,
    /// What a look at a room has shown since is newer.
    pub asked_at: Instant,
}

/// What is to be known before an earlier process is believed.
pub(super) struct Doubts<'a> {
    pub wishes: WishMark,
    /// Rooms of which something is known that it did not know.
    pub rooms: [&'a HashSet<RoomId>; 2],
}

impl Doubts<'_> {
    fn has(&self, room: &RoomId) -> bool {
        self.rooms.iter().any(|rooms| rooms.contains(room))
    }
}

impl Entries {
    pub(super) fn new(recheck: Duration) -> Self {
        Self {
            rooms: HashMap::new(),
            schedule: Schedule::default(),
            pending: BTreeSet::new(),
            totals: RoomTotals::default(),
            ignored: Arc::default(),
            recheck,
            listed_at: None,
            remembered: HashMap::new(),
            is_believed: false,
            is_first: false,
            unnoted: BTreeSet::new(),
            gone: BTreeSet::new(),
            unlooked: Vec::new(),
        }
    }

    /// What an earlier process noted.
    pub(super) fn remember(&mut self, notes: Vec<RoomNote>, is_believed: bool) {
        self.is_first = notes.is_empty();
        self.is_believed = is_believed;
        self.remembered = notes.into_iter().map(|note| (note.room_id.clone(), note)).collect();
    }

    pub(super) fn get(&self, room: &RoomId) -> Option<&Entry> {
        self.rooms.get(room)
    }

    /// Takes a fresh listing over; rooms that changed become due, and those of which it is not to be believed that they
    /// are as they were.
    pub(super) fn refresh(&mut self, listed: Listed, doubts: &Doubts<'_>, now: Instant) {
        let Listed { rooms: listings, joined, asked_at } = listed;
        let listed: HashSet<RoomId> = listings.iter().map(|listing| listing.room_id.clone()).collect();
        // What is believed is looked at again little by little.
        let was_listed = self.are_listed();
        let apart = self.recheck / u32::try_from(listings.len()).unwrap_or(u32::MAX).max(1);
        for (listing, number) in listings.into_iter().zip(1_u32..) {
            let room = listing.room_id.clone();
            let is_joined = joined.contains(&room);
            if let Some(known) = self.rooms.get(&room) {
                if !known.was_seen_since(asked_at) {
                    self.change(&room, |entry| entry.renew(listing, is_joined, now));
                }
            } else {
                let mut entry = Entry::new(listing, is_joined, was_listed, now);
                match self.remembered.remove(&room) {
                    Some(note) => {
                        let believes = self.is_believed && !was_listed && !doubts.has(&room);
                        let (wishes, recheck_at) = (doubts.wishes, now + apart * number);
                        entry.remember(&note, believes.then_some(Belief { wishes, recheck_at }));
                    }
                    // Of where it was before there was a book nobody knows whether it has greeted.
                    None => entry.memory.is_greeted = is_joined && self.is_first && !was_listed,
                }
                self.insert(&room, entry);
            }
        }
        // A listing may have gaps; where the bot is, the homeserver says elsewhere.
        let is_there = |room: &RoomId| listed.contains(room) || joined.contains(room);
        let is_gone = |(room, entry): &(&RoomId, &Entry)| {
            !entry.is_in_flight() && !entry.was_seen_since(asked_at) && !is_there(room)
        };
        let gone: Vec<RoomId> = self.rooms.iter().filter(is_gone).map(|(room, _)| room.clone()).collect();
        for room in gone {
            if let Some(entry) = self.rooms.remove(&room) {
                count(&mut self.totals, entry.state, -1);
                self.pend(&room, entry.pending_since, None);
                self.schedule.replace(&room, entry.slot(), None);
                self.ignore(&room, false);
                self.unnoted.remove(&room);
                self.gone.insert(room);
            }
        }
        let forgotten = self.remembered.extract_if(|room, _| !is_there(room));
        self.gone.extend(forgotten.map(|(room, _)| room));
        self.listed_at.get_or_insert(now);
    }

    /// Takes in those of some listed rooms that are new or were empty before, and says how many these are. One that an earlier
    /// process knew is not new: that is for a listing which tells where the bot is.
    pub(super) fn discover(&mut self, listings: Vec<RoomListing>, now: Instant) -> u64 {
        let mut found = 0;
        for listing in listings {
            let room = listing.room_id.clone();
            match self.rooms.get(&room) {
                Some(entry) if entry.listing.is_empty() => {
                    self.change(&room, |entry| entry.renew(listing, entry.standing.is_joined, now));
                }
                None if !self.remembered.contains_key(&room) => {
                    self.insert(&room, Entry::new(listing, false, true, now));
                }
                _ => continue,
            }
            found += 1;
        }
        found
    }

    fn insert(&mut self, room: &RoomId, entry: Entry) {
        count(&mut self.totals, entry.state, 1);
        self.pend(room, None, entry.pending_since);
        self.schedule.replace(room, None, entry.slot());
        self.gone.remove(room);
        self.rooms.insert(room.clone(), entry);
        self.change(room, |_| ());
    }

    /// Whether the rooms of the homeserver are known.
    pub(super) fn are_listed(&self) -> bool {
        self.listed_at.is_some()
    }

    /// Since when a room is pending that is so for the longest time.
    pub(super) fn oldest_pending(&self) -> Option<Instant> {
        self.pending.first().map(|(since, _)| *since)
    }

    /// Whether every room was judged that was there when they were listed first. On a busy homeserver there is always a new one
    /// that was not.
    pub(super) fn are_judged(&self) -> bool {
        self.listed_at.is_some_and(|listed| self.oldest_pending().is_none_or(|since| since > listed))
    }

    /// Makes a room due now, whatever it waits for; whether there is such a room.
    pub(super) fn hint(&mut self, room: &RoomId, is_urgent: bool, now: Instant) -> bool {
        self.change(room, |entry| entry.hinted(is_urgent, now)).is_some()
    }

    /// The bot is in a room. Where it has come in by itself that is no news; a person may have joined who is signed in as it.
    pub(super) fn joined(&mut self, room: &RoomId, now: Instant) -> bool {
        self.change(room, |entry| entry.joined(now)).is_some()
    }

    /// Makes every room due: the wishes changed.
    pub(super) fn all_due(&mut self, now: Instant) {
        let rooms: Vec<RoomId> = self.rooms.keys().cloned().collect();
        for room in &rooms {
            self.change(room, |entry| entry.wished(now));
        }
    }

    /// Makes a room due: what is wished of it may have changed.
    pub(super) fn due(&mut self, room: &RoomId, now: Instant) {
        self.change(room, |entry| entry.wished(now));
    }

    /// The earliest time at which a room can be visited.
    pub(super) fn next_due(&self, free: Free) -> Option<Instant> {
        self.schedule.next(free)
    }

    /// Rooms to visit now, marked as being visited: first those that have just been made, or that
    /// something happened in.
    pub(super) fn take_due(&mut self, now: Instant, mut free: Free) -> Vec<Due> {
        let mut taken = Vec::new();
        while let Some(due) = self.schedule.first_due(now, free) {
            self.change(&due.room, Entry::taken);
            free.take(due.is_urgent);
            taken.push(due);
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
        self.change(room, |entry| entry.abandoned(now));
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
        let (slot, state, since) = (entry.slot(), entry.state, entry.pending_since);
        let result = change(entry);
        let pending_since = entry.pending_since;
        self.schedule.replace(room, slot, entry.slot());
        if entry.state != state {
            count(&mut self.totals, state, -1);
            count(&mut self.totals, entry.state, 1);
        }
        let (is_ignored, is_noted) = (entry.is_ignored(), entry.is_noted());
        self.pend(room, since, pending_since);
        self.ignore(room, is_ignored);
        if is_noted {
            self.unnoted.remove(room);
        } else if !self.unnoted.contains(room) {
            self.unnoted.insert(room.clone());
        }
        Some(result)
    }

    /// Ends: what there is to do, nobody does any more. Rooms in which something is open are not at rest.
    pub(super) fn close(&mut self, wishes: WishMark, is_open: impl Fn(&RoomId) -> bool, now: Instant) {
        let rooms: Vec<RoomId> = self.rooms.keys().cloned().collect();
        for room in &rooms {
            let is_open = is_open(room);
            self.change(room, |entry| entry.close(wishes, is_open, now));
        }
        // What was never listed was not looked at either.
        for note in self.remembered.values_mut().filter(|note| note.rests_as.is_some()) {
            note.rests_as = None;
            self.unlooked.push(note.clone());
        }
    }

    /// Whether there is anything to write into the book.
    pub(super) fn has_changes(&self) -> bool {
        !self.unnoted.is_empty() || !self.gone.is_empty() || !self.unlooked.is_empty()
    }

    /// What is to be written into the book, which from now on counts as written.
    pub(super) fn take_changes(&mut self, now: Timestamp) -> Changes {
        let rooms: Vec<RoomId> = self.unnoted.iter().take(MOST).cloned().collect();
        let mut notes: Vec<RoomNote> =
            rooms.iter().filter_map(|room| self.change(room, |entry| entry.note(now))).collect();
        notes.append(&mut self.unlooked);
        let mut gone = std::mem::take(&mut self.gone);
        if let Some(first) = gone.iter().nth(MOST).cloned() {
            self.gone = gone.split_off(&first);
        }
        Changes { notes, gone: gone.into_iter().collect() }
    }
}

impl Entries {
    fn pend(&mut self, room: &RoomId, old: Option<Instant>, new: Option<Instant>) {
        if old == new {
            return;
        }
        if let Some(since) = old {
            self.pending.remove(&(since, room.clone()));
        }
        if let Some(since) = new {
            self.pending.insert((since, room.clone()));
        }
    }

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

#[cfg(test)]
mod tests;
