//! What stands in the book of a room, and what an earlier process noted there.

use jiff::Timestamp;
use tokio::time::Instant;

use super::{Entry, SETTLING, Want};
use crate::{
    coverage::{carry_out::State, memory::Memory, planner},
    domain::{
        room::{RestMark, RoomNote, RoomState},
        selection::WishMark,
    },
    homeserver::RoomListing,
};

/// Whether anybody looks at a room any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Open,
    /// Nobody does. With a mark, where there is nothing to do.
    Closed(Option<RestMark>),
}

/// What stands in the book of a room, as far as it changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Noted {
    state: RoomState,
    reason: Option<&'static str>,
    since: Timestamp,
    is_greeted: bool,
    was_functional_member: bool,
    rests_as: Option<RestMark>,
}

/// What lets an entry believe what is noted.
#[derive(Debug, Clone, Copy)]
pub(in crate::coverage::entries) struct Belief {
    pub wishes: WishMark,
    /// Until then.
    pub recheck_at: Instant,
}

impl Entry {
    /// Takes over what an earlier process noted. Where that one had nothing to do, and all is as it was then, that is
    /// believed until the room is looked at again as all are; what it cannot see in the list, sync tells.
    pub(in crate::coverage::entries) fn remember(&mut self, note: &RoomNote, belief: Option<Belief>) {
        if let Some(Belief { wishes, recheck_at }) = belief
            && note.state == RoomState::Covered
            && note.rests_as == Some(self.mark(wishes))
            && self.standing.is_joined
        {
            (self.state, self.pending_since) = (State::Covered, None);
            self.want = Want::Nothing;
            self.recheck_at = recheck_at;
            self.is_believed = true;
        }
        self.memory.is_greeted = note.is_greeted;
        // Who was shown the door is a newcomer, as is another account after the one that wrote the note.
        self.memory.was_functional_member = note.was_functional_member && self.standing.is_joined;
        self.noted = Some(Noted {
            state: note.state,
            // A code that this version does not know is none, and is written anew.
            reason: note.reason.as_deref().and_then(planner::reason_code),
            since: note.since,
            is_greeted: note.is_greeted,
            was_functional_member: note.was_functional_member,
            rests_as: note.rests_as,
        });
        self.is_renamed = note.name.as_deref() != self.name();
    }

    /// Its name, as far as it may be kept.
    pub(super) fn name(&self) -> Option<&str> {
        let is_left_out = self.standing.is_excluded
            || match (self.state, &self.noted) {
                (State::Pending, Some(noted)) => noted.state == RoomState::Excluded,
                (state, _) => matches!(state, State::Excluded(_) | State::Pending),
            };
        self.listing.name.as_deref().filter(|_| !is_left_out)
    }

    /// What the book is to say. That a room is looked at once more is not worth a note, but that it cannot be mended is.
    fn to_note(&self) -> (RoomState, Option<&'static str>) {
        match self.noted {
            Some(noted) if self.state == State::Pending && self.failures == 0 => (noted.state, noted.reason),
            _ => self.state.told(),
        }
    }

    /// Whether the book says what is so.
    pub(in crate::coverage::entries) fn is_noted(&self) -> bool {
        !self.is_renamed
            && self.noted.is_some_and(|noted| {
                (noted.state, noted.reason) == self.to_note()
                    && noted.is_greeted == self.memory.is_greeted
                    && noted.was_functional_member == self.memory.was_functional_member
                    && (self.end == End::Open || self.end == End::Closed(noted.rests_as))
            })
    }

    /// The note to write now.
    pub(in crate::coverage::entries) fn note(&mut self, now: Timestamp) -> RoomNote {
        let (state, reason) = self.to_note();
        let since = match self.noted {
            Some(noted) if (noted.state, noted.reason) == (state, reason) => noted.since,
            _ => now,
        };
        let rests_as = match self.end {
            End::Open => None,
            End::Closed(mark) => mark,
        };
        let Memory { is_greeted, was_functional_member, .. } = self.memory;
        self.is_renamed = false;
        self.noted = Some(Noted { state, reason, since, is_greeted, was_functional_member, rests_as });
        RoomNote {
            room_id: self.listing.room_id.clone(),
            name: self.name().map(ToOwned::to_owned),
            state,
            reason: reason.map(ToOwned::to_owned),
            since,
            is_greeted,
            was_functional_member,
            rests_as,
        }
    }

    /// No more is done. Where this process has seen that the bot is as it should be, and nothing is open, what is so is
    /// noted for the next one.
    pub(in crate::coverage::entries) fn close(&mut self, wishes: WishMark, is_open: bool, now: Instant) {
        // The look that follows every act comes late where there is much to do.
        let has_settled = (self.repairs == 0 || self.repaired_at + SETTLING <= now) && now < self.recheck_at;
        let is_well = self.state == State::Covered && self.standing.is_joined && !self.standing.is_excluded;
        let is_idle = self.want == Want::Nothing && !self.is_in_flight() && !is_open;
        let rests = is_well && is_idle && has_settled && !self.is_believed;
        self.end = End::Closed(rests.then(|| self.mark(wishes)));
    }

    /// What is so of it now, as far as the list tells.
    fn mark(&self, wishes: WishMark) -> RestMark {
        let RoomListing { state_events, join_rules, .. } = &self.listing;
        wishes.with(&format!("{state_events} {join_rules:?}"))
    }
}
