//! Invitations to rooms that the homeserver does not list, because nobody of it is in them.

use std::{collections::HashMap, sync::Arc};

use tokio::time::Instant;
use tracing::Instrument as _;

use super::{LISTING_LAG, Work, visits::Job};
use crate::domain::RoomId;

/// An invitation is answered so often at most.
const MOST_ATTEMPTS: u32 = 5;

/// Invitations, each with the time from which a list without its room is believed, and the number of attempts to answer it.
#[derive(Debug, Default)]
pub(super) struct Unlisted(HashMap<RoomId, (Instant, u32)>);

impl Unlisted {
    pub(super) fn add(&mut self, room: &RoomId, now: Instant) {
        self.0.entry(room.clone()).or_insert((now + LISTING_LAG, 0));
    }

    pub(super) fn remove(&mut self, room: &RoomId) {
        self.0.remove(room);
    }

    /// Those to answer now, at most so many: a list that was asked for then is without them.
    fn take_due(&mut self, most: usize, listed_as_of: Instant, now: Instant) -> Vec<RoomId> {
        let due = self.0.iter_mut().filter(|(_, (at, _))| *at <= listed_as_of).take(most);
        due.map(|(room, (at, attempts))| {
            *attempts += 1;
            *at = now + LISTING_LAG * 2_u32.pow(*attempts);
            room.clone()
        })
        .collect()
    }
}

impl Work {
    /// Answers invitations to rooms that stayed unlisted.
    pub(super) fn dispatch_unlisted(&mut self, now: Instant) {
        if self.control.borrow().paused {
            return;
        }
        let entries = &self.entries;
        self.unlisted
            .0
            .retain(|room, (_, attempts)| entries.get(room).is_none() && *attempts < MOST_ATTEMPTS);
        let Some(listed_as_of) = self.listed_as_of else { return };
        for room in self.unlisted.take_due(self.free().ordinary, listed_as_of, now) {
            let in_excluded_space = self.excluded.contains(&room);
            let (context, selection, invited) =
                (Arc::clone(&self.context), Arc::clone(&self.selection), room.clone());
            let answer =
                async move { context.answer_unlisted(&invited, in_excluded_space, &selection).await };
            let job = self.jobs.spawn(answer.in_current_span());
            self.rooms_of_jobs.insert(job.id(), Job::Answer(room));
        }
    }
}
