//! What rooms there are: often whether there is a new one, now and then all of them. It is asked beside everything else: a busy
//! homeserver takes its time, and visits go on meanwhile.

use std::{collections::HashSet, sync::Arc};

use tokio::{
    task::JoinError,
    time::{Duration, Instant},
};
use tracing::Instrument as _;

use super::{LISTING_LAG, LONGEST_POLL, Work};
use crate::{
    coverage::{
        entries::{Doubts, Listed},
        interface::Problem,
        spaces,
    },
    domain::{Failure, Retry, RoomId},
    homeserver::{HomeserverError, RoomList, RoomListing},
};

/// What is below excluded spaces is asked for so often, or less where that takes long.
const SPACES_LIFETIME: Duration = Duration::from_secs(10);
/// Rooms of a short list.
const SHORT_LIST: u64 = 100;
/// So long no other one is asked for after one that was of no use.
const FUTILE_PAUSE: Duration = Duration::from_secs(10);

/// What the homeserver answered.
pub(super) struct Look {
    asked_at: Instant,
    took: Duration,
    answer: Result<Answer, HomeserverError>,
}

enum Answer {
    All {
        list: RoomList,
        joined: Vec<RoomId>,
        /// The rooms below excluded spaces, if these were asked for, too, and how long that took.
        excluded: Option<(HashSet<RoomId>, Duration)>,
    },
    Number {
        inhabited: u64,
        /// The smallest of them, if there are more than were known, and if that may tell which.
        smallest: Option<Vec<RoomListing>>,
    },
}

impl Work {
    /// When to ask next, unless that is being done.
    pub(super) fn next_look(&self) -> Option<Instant> {
        let next = if self.problem.is_some() { self.next_poll } else { self.next_poll.min(self.next_probe) };
        self.looking.is_empty().then_some(next)
    }

    /// Asks for the rooms, if it is time to.
    pub(super) async fn look_around(&mut self) {
        let now = Instant::now();
        if self.next_look().is_none_or(|at| now < at) || !self.read_book().await {
            return;
        }
        let asked_at = Instant::now();
        let seen = move |answer| Look { asked_at, took: asked_at.elapsed(), answer };
        if now >= self.next_poll {
            let answer = self.list(asked_at);
            self.looking.spawn(async move { seen(answer.await) }.in_current_span());
        } else {
            let answer = self.probe(asked_at);
            self.looking.spawn(async move { seen(answer.await) }.in_current_span());
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
                    self.cannot_list("database", error.to_string(), LONGEST_POLL);
                }
            }
        }
        self.has_read
    }

    fn list(&self, now: Instant) -> impl Future<Output = Result<Answer, HomeserverError>> + Send + use<> {
        let context = Arc::clone(&self.context);
        let are_stale = now >= self.excluded_until || !self.knows_excluded;
        let spaces = are_stale.then(|| self.selection.exclude_spaces.clone());
        async move {
            let admin = &*context.admin;
            let (list, joined) =
                futures::try_join!(admin.rooms(), admin.joined_rooms(&context.identity.bot))?;
            let excluded = match spaces {
                Some(spaces) => {
                    let since = Instant::now();
                    Some((spaces::below(admin, &spaces, &list.rooms).await?, since.elapsed()))
                }
                None => None,
            };
            Ok(Answer::All { list, joined, excluded })
        }
    }

    /// Counts the rooms. Where somebody makes rooms all the time, a long list each time would be a good part of the
    /// homeserver's work; where many rooms have one member left, a short one is of no use.
    fn probe(&self, now: Instant) -> impl Future<Output = Result<Answer, HomeserverError>> + Send + use<> {
        let context = Arc::clone(&self.context);
        let (known, is_useful) = (self.inhabited, now >= self.next_short_list);
        async move {
            let inhabited = context.admin.inhabited_rooms().await?;
            let smallest = if inhabited > known && is_useful {
                Some(context.admin.smallest_rooms(SHORT_LIST).await?)
            } else {
                None
            };
            Ok(Answer::Number { inhabited, smallest })
        }
    }

    /// Takes in what was answered.
    pub(super) fn looked(&mut self, look: Result<Look, JoinError>) {
        match look {
            Ok(Look { asked_at, took, answer: Ok(answer) }) => {
                self.poll_failures = 0;
                self.problem = None;
                match answer {
                    Answer::All { list, joined, excluded } => {
                        self.take_excluded(excluded);
                        self.take_list(list, joined, asked_at, took);
                    }
                    Answer::Number { inhabited, smallest } => self.take_number(inhabited, smallest, took),
                }
            }
            Ok(Look { answer: Err(error), .. }) => {
                self.poll_failures += 1;
                let wait = self.poll_delay(&error);
                tracing::warn!(error = %error, category = error.category(), ?wait, "rooms cannot be listed");
                self.cannot_list(error.category(), error.to_string(), wait);
            }
            Err(error) => {
                self.poll_failures += 1;
                tracing::error!(%error, "listing the rooms ended without a result");
                self.cannot_list("internal", error.to_string(), LISTING_LAG);
            }
        }
    }

    fn cannot_list(&mut self, category: &'static str, message: String, wait: Duration) {
        self.problem = Some(Problem { category, message });
        self.next_poll = Instant::now() + wait;
    }

    fn take_number(&mut self, inhabited: u64, smallest: Option<Vec<RoomListing>>, took: Duration) {
        let now = Instant::now();
        let was_asked = smallest.is_some();
        self.inhabited += smallest.map_or(0, |rooms| self.entries.discover(rooms, now));
        let are_missing = inhabited > self.inhabited;
        if was_asked && are_missing {
            self.next_short_list = now + FUTILE_PAUSE;
        }
        // Fewer than a short list has found is no loss: rooms were made between the two questions.
        if are_missing || (inhabited < self.inhabited && !was_asked) {
            self.next_poll = self.next_poll.min(self.may_list_from);
        }
        self.next_probe = now + self.probing.pause(took, self.settings.probe);
    }

    fn take_list(&mut self, list: RoomList, joined: Vec<RoomId>, asked_at: Instant, took: Duration) {
        let now = Instant::now();
        self.inhabited = list.inhabited;
        self.listed_as_of = Some(asked_at);
        // What is below a space may have changed since the rooms were noted.
        let doubts = Doubts { wishes: self.wishes, rooms: [&self.early, &self.excluded] };
        let listed = Listed { rooms: list.rooms, joined: joined.into_iter().collect(), asked_at };
        self.entries.refresh(listed, &doubts, now);
        self.early.clear();
        self.may_list_from = now + self.listing.pause(took, self.settings.probe);
        self.next_poll = self.may_list_from.max(now + self.settings.poll);
    }

    fn take_excluded(&mut self, excluded: Option<(HashSet<RoomId>, Duration)>) {
        let Some((excluded, took)) = excluded else { return };
        self.excluded_until = Instant::now() + self.excluding.pause(took, SPACES_LIFETIME);
        self.knows_excluded = true;
        for room in excluded.symmetric_difference(&self.excluded) {
            self.entries.due(room, Instant::now());
        }
        if excluded != *self.excluded {
            self.excluded = Arc::new(excluded);
        }
    }

    /// Whether it is known which rooms there are, and which are to be left alone.
    pub(super) fn may_visit(&self) -> bool {
        self.problem.is_none() && self.knows_excluded
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
