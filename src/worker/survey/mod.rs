//! What the homeserver's admin API shows, compared with what it showed before: accounts and their
//! sessions, uploads, reports, deleted rooms, and the homeserver itself.
//!
//! The homeserver does not tell who did it, nor when: the actor is unknown then, and the time is the
//! span between two looks. What was seen last is kept in the database and changes in the transaction
//! of the records that say so; a crash repeats a look.

mod accounts;
mod draft;
mod media;
mod reports;
mod rooms;
mod server;
mod sessions;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(crate) use self::reports::Aside;
use super::{
    backoff::Backoff,
    ports::Presence,
    recorder::{Recorder, Stop},
    sources::{Source, Sources, Standing},
};
use crate::{
    domain::{Failure as _, RoomId, UserId},
    homeserver::{Admin, HomeserverError, Inspect},
};

/// What is looked at, and how often.
const PARTS: [(Source, Duration); 7] = [
    (Source::Accounts, accounts::EVERY),
    (Source::Media, Duration::from_mins(2)),
    (Source::Quarantine, Duration::from_mins(2)),
    (Source::Reports, Duration::from_mins(1)),
    (Source::UserReports, Duration::from_mins(1)),
    (Source::Homeserver, Duration::from_mins(10)),
    (Source::DeletedRooms, Duration::from_mins(2)),
];

/// Why a look was not finished.
#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error(transparent)]
    Homeserver(#[from] HomeserverError),
    #[error(transparent)]
    Stop(#[from] Stop),
}

/// The part of the worker that looks.
#[derive(Clone)]
pub(crate) struct Survey {
    /// Reading access.
    pub(crate) inspect: Arc<dyn Inspect>,
    /// The worker's admin account.
    pub(crate) admin: Arc<dyn Admin>,
    /// The bot.
    pub(crate) bot: UserId,
    /// The trail.
    pub(crate) recorder: Recorder,
    /// Knows which rooms the selection leaves out.
    pub(crate) presence: Arc<dyn Presence>,
    /// Says how each source stands.
    pub(crate) sources: Sources,
    /// Reports that are not recorded, or not yet.
    pub(crate) aside: Aside,
    /// Nothing is looked at less often than this.
    pub(crate) at_least_every: Duration,
}

/// When a part is looked at next.
struct Turn {
    source: Source,
    every: Duration,
    due: Instant,
    backoff: Backoff,
}

impl Survey {
    /// Looks until cancelled. Accounts take long where there are many, and nothing else waits for them.
    pub(crate) async fn run(self, cancel: CancellationToken) -> Result<(), Stop> {
        let [accounts, others @ ..] = PARTS;
        tokio::try_join!(self.follow([accounts], &cancel), self.follow(others, &cancel)).map(drop)
    }

    /// One part after the other.
    async fn follow<const N: usize>(
        &self,
        parts: [(Source, Duration); N],
        cancel: &CancellationToken,
    ) -> Result<(), Stop> {
        let now = Instant::now();
        let turn = |(source, every): (Source, Duration)| Turn {
            source,
            every: every.min(self.at_least_every),
            due: now,
            backoff: Backoff::default(),
        };
        let mut turns = parts.map(turn);
        loop {
            let Some(next) = turns.iter_mut().min_by_key(|turn| turn.due) else { return Ok(()) };
            let wait = tokio::time::sleep_until(next.due);
            if cancel.run_until_cancelled(wait).await.is_none() {
                return Ok(());
            }
            let Some(result) = cancel.run_until_cancelled(self.look(next.source, cancel)).await else {
                return Ok(());
            };
            match result {
                Ok(()) => {
                    next.backoff.reset();
                    next.due = Instant::now() + next.every;
                    self.sources.set(next.source, Standing::On);
                }
                Err(LookError::Homeserver(error)) => {
                    if next.backoff.failures() == 0 {
                        tracing::warn!(source = next.source.slug(), %error, "cannot look at the homeserver");
                    }
                    let wait = next.backoff.next(error.retry());
                    // What it does not offer, it may offer after an upgrade.
                    let is_offered = !matches!(error, HomeserverError::NotOffered { .. });
                    next.due = Instant::now() + if is_offered { wait } else { wait.max(next.every) };
                    self.sources.set(next.source, standing(&error));
                }
                Err(LookError::Stop(Stop::Cancelled)) => return Ok(()),
                Err(LookError::Stop(stop)) => return Err(stop),
            }
        }
    }

    /// The rooms of which anything is recorded: the bot is in them, and its selection does not leave them out.
    async fn recorded_rooms(&self) -> Result<BTreeSet<RoomId>, LookError> {
        let joined = self.admin.joined_rooms(&self.bot).await?;
        Ok(joined.into_iter().filter(|room| !self.presence.ignores(room)).collect())
    }

    async fn look(&self, source: Source, cancel: &CancellationToken) -> Result<(), LookError> {
        match source {
            Source::Accounts => self.accounts(cancel).await,
            Source::Media => self.uploads(cancel).await,
            Source::Quarantine => self.quarantine(cancel).await,
            Source::Reports => self.event_reports(cancel).await,
            Source::UserReports => self.user_reports(cancel).await,
            Source::Homeserver => self.server(cancel).await,
            Source::DeletedRooms => self.deleted_rooms(cancel).await,
            // Of these, sync and the console tell.
            Source::Rooms
            | Source::LateKeys
            | Source::History
            | Source::Attachments
            | Source::Inbox
            | Source::AdmissionReviews
            | Source::AuditEvents => Ok(()),
        }
    }

    fn now_ms(&self) -> i64 {
        self.recorder.clock().now().as_millisecond()
    }

    /// A number that a cursor keeps.
    async fn number(&self, cursor: &str, cancel: &CancellationToken) -> Result<Option<i64>, Stop> {
        let value = self.recorder.cursor(cursor, cancel).await?;
        Ok(value.and_then(|value| value.parse().ok()))
    }
}

fn standing(error: &HomeserverError) -> Standing {
    match error {
        HomeserverError::NotOffered { what } => {
            Standing::Off(format!("this homeserver does not offer {what} to its admins"))
        }
        other => Standing::Lagging(other.to_string()),
    }
}
