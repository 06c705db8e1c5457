//! Invitations to rooms that the homeserver does not list, because nobody of it is in them.

use std::{collections::HashMap, sync::Arc};

use tokio::time::Instant;
use tracing::Instrument as _;

use super::{LISTING_LAG, Work, visits::Job};
use crate::{coverage::planner::Invitation, domain::RoomId};

/// An invitation is answered so often at most.
const MOST_ATTEMPTS: u32 = 5;

/// One that waits for an answer.
#[derive(Debug)]
struct Open {
    invitation: Invitation,
    /// From then on a list without its room is believed.
    at: Instant,
    /// How often it was tried to answer it.
    attempts: u32,
}

/// Invitations by room.
#[derive(Debug, Default)]
pub(super) struct Unlisted(HashMap<RoomId, Open>);

impl Unlisted {
    pub(super) fn add(&mut self, room: &RoomId, invitation: &Invitation, now: Instant) {
        let open = || Open { invitation: invitation.clone(), at: now + LISTING_LAG, attempts: 0 };
        self.0.entry(room.clone()).or_insert_with(open);
    }

    pub(super) fn remove(&mut self, room: &RoomId) {
        self.0.remove(room);
    }

    /// Those to answer now, at most so many: a list that was asked for then is without them.
    fn take_due(&mut self, most: usize, listed_as_of: Instant, now: Instant) -> Vec<(RoomId, Invitation)> {
        let due = self.0.iter_mut().filter(|(_, open)| open.at <= listed_as_of).take(most);
        due.map(|(room, open)| {
            open.attempts += 1;
            open.at = now + LISTING_LAG * 2_u32.pow(open.attempts);
            (room.clone(), open.invitation.clone())
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
        self.unlisted.0.retain(|room, open| entries.get(room).is_none() && open.attempts < MOST_ATTEMPTS);
        let Some(listed_as_of) = self.listed_as_of else { return };
        for (room, invitation) in self.unlisted.take_due(self.free(now).ordinary, listed_as_of, now) {
            self.slots.begun(now);
            let in_excluded_space = self.excluded.contains(&room);
            let (context, selection, invited) =
                (Arc::clone(&self.context), Arc::clone(&self.selection), room.clone());
            let answer = async move {
                context.answer_unlisted(&invited, &invitation, in_excluded_space, &selection).await
            };
            let job = self.jobs.spawn(answer.in_current_span());
            self.rooms_of_jobs.insert(job.id(), Job::Answer(room));
        }
    }
}
