//! Visits to rooms, so many at a time as are good for the homeserver.

use std::sync::Arc;

use tokio::time::Instant;
use tracing::Instrument as _;

use super::{LISTING_LAG, LONGEST_POLL, Work};
use crate::{
    coverage::{
        carry_out::{Errand, Visit, VisitError},
        facts::Surroundings,
        memory::Memory,
        schedule::{Due, Free},
    },
    domain::{Failure as _, RoomId},
    homeserver::HomeserverError,
};

pub(super) type Ended = Result<(tokio::task::Id, Visit), tokio::task::JoinError>;

/// What is done in a room.
#[derive(Debug)]
pub(super) enum Job {
    Visit(Due),
    /// To an invitation.
    Answer(RoomId),
}

impl Work {
    pub(super) fn free(&self, now: Instant) -> Free {
        let is_urgent = |job: &&Job| matches!(job, Job::Visit(Due { is_urgent: true, .. }));
        let urgent = self.rooms_of_jobs.values().filter(is_urgent).count();
        self.slots.free(urgent, self.rooms_of_jobs.len() - urgent, now)
    }

    pub(super) fn dispatch(&mut self) {
        let now = Instant::now();
        if !self.may_visit() || now < self.quiet_until || self.cancel.is_cancelled() {
            return;
        }
        self.dispatch_unlisted(now);
        for due in self.entries.take_due(now, self.free(now)) {
            if !due.is_urgent {
                self.slots.begun(now);
            }
            let Some(entry) = self.entries.get(&due.room) else { continue };
            let listing = entry.listing.clone();
            let memory: Memory = entry.memory.clone();
            let around = Surroundings {
                // Where something happened, it is looked at whether it still is.
                is_joined: entry.standing.is_joined && !due.is_urgent,
                new_for: entry.new_for(),
                excluded: Arc::clone(&self.excluded),
                now_ms: self.context.clock.now().as_millisecond(),
                ..Surroundings::default()
            };
            let context = Arc::clone(&self.context);
            let control = self.control.clone();
            let cancel = self.cancel.clone();
            let selection = Arc::clone(&self.selection);
            let visit = async move {
                // What is wished may change at any moment, and is judged anew then.
                let may_act = || {
                    let wished = control.borrow();
                    !cancel.is_cancelled() && !wished.paused && wished.selection == *selection
                };
                let (listing, selection) = (&listing, &*selection);
                let errand = Errand { listing, selection, around, may_act: &may_act };
                context.visit(errand, memory).await
            };
            let job = self.jobs.spawn(visit.in_current_span());
            self.rooms_of_jobs.insert(job.id(), Job::Visit(due));
        }
    }

    pub(super) fn ended(&mut self, ended: Ended) {
        let now = Instant::now();
        let id = ended.as_ref().map_or_else(tokio::task::JoinError::id, |(id, _)| *id);
        match (self.rooms_of_jobs.remove(&id), ended) {
            (Some(Job::Visit(Due { room, .. })), Ok((_, visit))) => {
                self.note(&room, &visit, now);
                if let Some(took) = visit.slowest {
                    self.slots.answered_in(took, now);
                }
                if self.entries.visited(&room, visit, now) {
                    self.pacer.settled(now);
                }
            }
            (Some(Job::Answer(room)), Ok((_, visit))) => {
                self.note(&room, &visit, now);
                // It may have been listed meanwhile.
                self.entries.hint(&room, true, now);
            }
            (Some(Job::Visit(Due { room, .. }) | Job::Answer(room)), Err(error)) => {
                tracing::error!(%room, error = %error, "visit to a room ended without a result");
                self.entries.abandoned(&room, now);
            }
            (None, _) => {}
        }
    }

    fn note(&mut self, room: &RoomId, visit: &Visit, now: Instant) {
        match &visit.error {
            None => {
                if visit.acted > 0 {
                    tracing::info!(%room, state = ?visit.state, steps = visit.acted, "worked on a room");
                    self.unlisted.remove(room);
                }
            }
            Some(VisitError::Log) => self.quiet_until = self.quiet_until.max(now + LISTING_LAG),
            Some(VisitError::Homeserver(error)) => {
                if let HomeserverError::RateLimited { retry_after, .. } = error {
                    let wait = retry_after.unwrap_or(LISTING_LAG).min(LONGEST_POLL);
                    self.quiet_until = self.quiet_until.max(now + wait);
                }
                tracing::warn!(%room, error = %error, category = error.category(), "room cannot be worked on");
            }
        }
    }
}
