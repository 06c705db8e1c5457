//! What rooms there are: often whether there is a new one, now and then all of them.

use tokio::time::{Duration, Instant};

use super::{LONGEST_POLL, Work};
use crate::{
    coverage::{entries::Doubts, interface::Problem, spaces},
    domain::{Failure, Retry},
    homeserver::HomeserverError,
};

const SPACES_LIFETIME: Duration = Duration::from_mins(1);
/// Rooms of a short list.
const SHORT_LIST: u64 = 100;
/// So long no other one is asked for after one that was of no use.
const FUTILE_PAUSE: Duration = Duration::from_secs(10);

impl Work {
    /// When to look next.
    pub(super) fn next_look(&self) -> Instant {
        if self.problem.is_some() { self.next_poll } else { self.next_poll.min(self.next_probe) }
    }

    /// Lists the rooms, if it is time to or if there is a new one.
    pub(super) async fn look_around(&mut self) {
        let now = Instant::now();
        if now < self.next_look() || !self.read_book().await {
            return;
        }
        let result = if now >= self.next_poll { self.list().await } else { self.probe().await };
        match result {
            Ok(()) => {
                self.poll_failures = 0;
                self.problem = None;
            }
            Err(error) => {
                self.poll_failures += 1;
                let wait = self.poll_delay(&error);
                tracing::warn!(error = %error, category = error.category(), ?wait, "rooms cannot be listed");
                self.problem = Some(Problem { category: error.category(), message: error.to_string() });
                self.next_poll = Instant::now() + wait;
            }
        }
    }

    /// What earlier processes noted is to be known before anything is done.
    async fn read_book(&mut self) -> bool {
        if !self.has_read {
            match self.scribe.open().await {
                Ok((notes, is_closed)) => {
                    self.entries.remember(notes, is_closed);
                    self.has_read = true;
                }
                Err(error) => {
                    tracing::warn!(%error, "what is known of rooms cannot be read");
                    self.problem = Some(Problem { category: "database", message: error.to_string() });
                    self.next_poll = Instant::now() + LONGEST_POLL;
                }
            }
        }
        self.has_read
    }

    async fn probe(&mut self) -> Result<(), HomeserverError> {
        let started = Instant::now();
        let number = self.context.admin.room_count().await?;
        let is_all = number == self.listed || (number > self.listed && self.find_new(number).await?);
        self.next_probe = Instant::now() + self.probing.pause(started.elapsed(), self.settings.probe);
        if is_all { Ok(()) } else { self.list().await }
    }

    /// Whether a short list has as many new rooms as there are. Where somebody makes rooms all the time, a long list each time
    /// would be a good part of the homeserver's work; where many rooms have one member left, the short one is of no use.
    async fn find_new(&mut self, number: u64) -> Result<bool, HomeserverError> {
        if Instant::now() < self.next_short_list {
            return Ok(false);
        }
        let rooms = self.context.admin.smallest_rooms(SHORT_LIST).await?;
        let found = self.entries.discover(rooms, Instant::now());
        let are_all = self.listed + found >= number;
        if are_all {
            self.listed += found;
        } else {
            self.next_short_list = Instant::now() + FUTILE_PAUSE;
        }
        Ok(are_all)
    }

    async fn list(&mut self) -> Result<(), HomeserverError> {
        let started = Instant::now();
        let context = std::sync::Arc::clone(&self.context);
        let (list, joined) =
            futures::try_join!(context.admin.rooms(), context.admin.joined_rooms(&context.identity.bot))?;
        self.look_at_spaces().await?;
        self.listed = list.total;
        // What is below a space may have changed since the rooms were noted.
        let doubts = Doubts { wishes: self.wishes, rooms: [&self.early, &self.excluded] };
        self.entries.refresh(list.rooms, &joined.into_iter().collect(), &doubts, Instant::now());
        self.early.clear();
        let now = Instant::now();
        let pause = self.listing.pause(started.elapsed(), self.settings.probe);
        // What is new may have to be found by a list like this one.
        self.next_probe = now + pause;
        self.next_poll = now + pause.max(self.settings.poll);
        Ok(())
    }

    async fn look_at_spaces(&mut self) -> Result<(), HomeserverError> {
        if Instant::now() < self.excluded_until {
            return Ok(());
        }
        let spaces = self.control.borrow().selection.exclude_spaces.clone();
        let excluded = spaces::below(&*self.context.admin, &spaces).await?;
        self.excluded_until = Instant::now() + SPACES_LIFETIME;
        if excluded != *self.excluded {
            self.excluded = std::sync::Arc::new(excluded);
            if self.entries.are_listed() {
                self.entries.all_due(Instant::now());
            }
        }
        Ok(())
    }

    fn poll_delay(&self, error: &HomeserverError) -> Duration {
        let first = Duration::from_secs(1);
        let backoff =
            first.saturating_mul(2_u32.saturating_pow(self.poll_failures.saturating_sub(1).min(16)));
        match error.retry() {
            // A refused credential is looked at again as slowly as the error says.
            Retry::After(after) => after.max(first).min(Duration::from_mins(5)),
            Retry::Backoff | Retry::Never => backoff.min(LONGEST_POLL),
        }
    }
}
