//! Runs the worker's parts as the instructions ask for it: the trail first, then the identity, then
//! everything that needs both.

use std::{sync::Arc, time::Duration};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::{
    alive,
    backoff::Backoff,
    board::Board,
    cover::{Cover, Farewells},
    guard::{IDENTITY_CURSOR, check},
    inbox,
    media::Bucket,
    metrics::Metrics,
    plan::{Mode, mode},
    ports::{InstructionsReceiver, Presence, Reporter},
    recorder::{Recorder, Stop},
    records, report,
    session::{IdentityFacts, Session, SessionError, Sessions},
    sources::{Source, Sources, Standing},
    suspension,
};
use crate::{
    coverage::planner::Identity,
    domain::{
        BotName, Failure, UserId,
        worker::{Check, Instructions},
    },
    homeserver::{Admin, Inspect},
    store::Batch,
    telemetry::health::Health,
};

/// Everything a worker is made of.
pub struct Worker {
    /// Its custom resource.
    pub bot: BotName,
    /// Its account.
    pub user: UserId,
    /// Version of the operator that made this pod, where there is one.
    pub operator_version: Option<String>,
    /// Unique for this run of the process.
    pub run_id: String,
    /// Its device.
    pub sessions: Arc<Sessions>,
    /// Its homeserver's admin API.
    pub admin: Arc<dyn Admin>,
    /// Its trail.
    pub recorder: Recorder,
    /// Its report.
    pub board: Board,
    /// Its metrics.
    pub metrics: Metrics,
    /// Its readiness.
    pub health: Health,
    /// What it is told.
    pub instructions: InstructionsReceiver,
    /// Who takes its reports.
    pub reporter: Arc<dyn Reporter>,
    /// What sync tells to those who bring the bot into rooms.
    pub presence: Arc<dyn Presence>,
    /// Brings the bot into rooms.
    pub cover: Option<Cover>,
    /// Looks at the homeserver and its module, and for an Audit Bot at accounts, uploads and reports.
    pub inspect: Option<Arc<dyn Inspect>>,
    /// Where the content of attachments goes, if not into the database.
    pub bucket: Option<Bucket>,
    /// How often it looks.
    pub pace: Pace,
}

/// How often a worker looks at what nobody tells it.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Time between two looks at the identity.
    pub examine: Duration,
    /// Longest time between two looks at what the admin API shows; each part has a shorter one of its own.
    pub survey: Duration,
    /// A source that lags or is off for less is not worth a record.
    pub moment: Duration,
    /// The inbox has to be empty for so long before the trail is closed: while a bot is being deleted the console carries
    /// what waits for its trail every few seconds.
    pub quiet: Duration,
    /// A bot that is removed leaves its rooms.
    pub farewells: Farewells,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            examine: Duration::from_mins(1),
            survey: Duration::from_hours(24),
            moment: Duration::from_secs(10),
            quiet: Duration::from_secs(15),
            farewells: Farewells::default(),
        }
    }
}

impl Worker {
    /// Runs until `soft` is cancelled, or until this process must end.
    pub async fn run(self, soft: CancellationToken) -> Result<(), Stop> {
        self.health.waiting("database", "not opened yet");
        self.health.waiting("sync", "no sync yet");
        // The last report goes out after everything else has stopped.
        let reporting = CancellationToken::new();
        let reports =
            report::run(self.board.clone(), self.reporter.clone(), self.metrics.clone(), reporting.clone());
        let reports = tokio::spawn(reports.in_current_span());
        let result = match self.work(&soft).await {
            Err(Stop::Cancelled) => Ok(()),
            other => other,
        };
        if matches!(result, Err(Stop::LostSequencer)) {
            self.health.dead("another process writes this trail");
        }
        reporting.cancel();
        if let Err(error) = reports.await {
            tracing::error!(%error, "reporting");
        }
        result
    }

    async fn work(&self, soft: &CancellationToken) -> Result<(), Stop> {
        let promised = || self.instructions.borrow().promised.clone();
        self.recorder.open(promised, soft).await?;
        self.health.ready("database");
        let mut always = JoinSet::new();
        let count = report::count_undecryptable(self.recorder.clone(), self.board.clone(), soft.clone());
        always.spawn(count.in_current_span());
        let draining = soft.child_token();
        // After the last record of a trail there is none, also if the worker is started once more.
        if mode(&self.instructions.borrow()) != Mode::Closing {
            always.spawn(self.alive().run(draining.clone()).in_current_span());
            let inbox = inbox::run(self.recorder.clone(), self.metrics.clone(), draining.clone());
            always.spawn(inbox.in_current_span());
        }
        let result = tokio::select! {
            result = self.follow_instructions(&draining, soft) => result,
            stop = first_failure(&mut always, &draining) => Err(stop),
        };
        // Also if it was about to close the trail: what waits in the inbox is not to wait for the bot's return.
        if matches!(result, Ok(()) | Err(Stop::Cancelled)) {
            self.say_stopped().await;
        }
        result
    }

    /// The batch that was under way is finished, and what is in the inbox: maybe nobody starts this worker again. A
    /// database that is down must not hold up the end.
    async fn say_stopped(&self) {
        let draft = records::stopped(&self.bot, &self.run_id, self.recorder.clock().now());
        let now = self.recorder.clock().now().as_millisecond();
        let cursors = vec![(alive::CURSOR.to_owned(), now.to_string())];
        let batch = Batch { drafts: vec![draft], cursors, ..Batch::default() };
        let deadline = CancellationToken::new();
        let last = async {
            // After the last record of a closed trail there is none: its head is what was reported, and kept.
            if self.board.get().closed || self.is_closed(&deadline).await? {
                return Ok(());
            }
            inbox::drain(&self.recorder, &self.metrics, &deadline).await?;
            self.recorder.append(&batch, &deadline).await.map(drop)
        };
        if !matches!(tokio::time::timeout(Duration::from_secs(5), last).await, Ok(Ok(()))) {
            tracing::warn!("the end of this run could not be recorded");
        }
    }

    /// Whether the trail has its last record, which may be there although nobody waited for the answer.
    async fn is_closed(&self, cancel: &CancellationToken) -> Result<bool, Stop> {
        let told = self.instructions.borrow().clone();
        let deleted = records::deleted(&self.bot, &told, self.recorder.clock().now());
        Ok(told.deleting && self.recorder.find_by_source(&deleted.source_id, cancel).await?.is_some())
    }

    async fn follow_instructions(
        &self,
        draining: &CancellationToken,
        soft: &CancellationToken,
    ) -> Result<(), Stop> {
        let mut instructions = self.instructions.clone();
        while !soft.is_cancelled() {
            let now = instructions.borrow_and_update().clone();
            self.board.set(|report| report.generation = now.generation);
            let mode = mode(&now);
            if mode != Mode::Closing {
                suspension::note_configuration(&self.recorder, &self.bot, &now, soft).await?;
            }
            let changed = self.until_mode_changes(mode);
            match mode {
                Mode::Closing => {
                    self.metrics.follows(false);
                    self.close(&now, draining, soft).await?;
                    soft.cancelled().await;
                }
                Mode::Suspended => {
                    self.metrics.follows(false);
                    suspension::begin(&self.recorder, &self.board, soft).await?;
                    self.health.ready("sync");
                    tokio::select! {
                        () = changed => {}
                        () = soft.cancelled() => {}
                    }
                }
                Mode::Running => {
                    self.metrics.follows(true);
                    self.board.set(|report| report.suspended = false);
                    let matrix = soft.child_token();
                    let stop_it = async {
                        changed.await;
                        matrix.cancel();
                        std::future::pending::<()>().await;
                    };
                    tokio::select! {
                        result = self.matrix_side(&matrix) => match result {
                            // There was no session yet, and the mode changed: the process goes on with that.
                            Err(Stop::Cancelled) if !soft.is_cancelled() => {}
                            other => other?,
                        },
                        () = stop_it => {}
                    }
                }
            }
        }
        Ok(())
    }

    /// Follows the instructions, and the configuration records with them, while the mode stays.
    async fn until_mode_changes(&self, current: Mode) {
        let mut instructions = self.instructions.clone();
        instructions.mark_changed();
        let cancel = CancellationToken::new();
        loop {
            if instructions.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            let now = instructions.borrow_and_update().clone();
            if mode(&now) != current {
                return;
            }
            self.board.set(|report| report.generation = now.generation);
            if suspension::note_configuration(&self.recorder, &self.bot, &now, &cancel).await.is_err() {
                return;
            }
        }
    }

    async fn close(
        &self,
        told: &Instructions,
        draining: &CancellationToken,
        soft: &CancellationToken,
    ) -> Result<(), Stop> {
        let deleted = || records::deleted(&self.bot, told, self.recorder.clock().now());
        // After the last record there is none, also if the worker is started once more.
        let is_open = !self.is_closed(soft).await?;
        if let Some(cover) = self.cover.as_ref().filter(|_| is_open && told.leaves_in_order()) {
            let identity = Identity { bot: self.user.clone(), server: told.server_name.clone() };
            let instructions = self.instructions.clone();
            let leaving = cover.farewell(identity, instructions, &self.board, self.pace.farewells, soft);
            // What is changed meanwhile is recorded. The mode stays: nothing takes a deletion back.
            let followed = async {
                self.until_mode_changes(Mode::Closing).await;
                std::future::pending::<()>().await;
            };
            tokio::select! {
                result = leaving => result?,
                () = followed => {}
            }
        }
        draining.cancel();
        let told = self.instructions.borrow().clone();
        if is_open {
            suspension::note_configuration(&self.recorder, &self.bot, &told, soft).await?;
            inbox::drain_until_quiet(&self.recorder, &self.metrics, self.pace.quiet, soft).await?;
            let mut batch = suspension::end(&self.recorder, &self.bot, &told, soft).await?;
            batch.drafts.push(deleted());
            self.recorder.append(&batch, soft).await?;
        }
        tracing::info!("the trail is closed: the custom resource is being deleted");
        self.health.ready("sync");
        self.board.set(|report| {
            report.closed = true;
            report.generation = told.generation;
            let check =
                || Check::unknown("Closed", "the custom resource is being deleted, its trail is closed");
            report.recording = check();
            report.rooms_covered = check();
            report.module = check();
        });
        Ok(())
    }

    /// Session, identity, capture, late keys, coverage, until cancelled. How the sources stand is recorded meanwhile, also
    /// that nothing is captured as long as there is no session.
    async fn matrix_side(&self, cancel: &CancellationToken) -> Result<(), Stop> {
        let (sources, inner) = (self.sources(), cancel.child_token());
        let (bot, recorder) = (self.bot.clone(), self.recorder.clone());
        let recording = async {
            let _then_the_other_ends = inner.clone().drop_guard();
            sources.clone().record(bot, recorder, self.pace.moment, inner.clone()).await
        };
        let following = async {
            let _then_the_other_ends = inner.clone().drop_guard();
            self.follow_homeserver(sources.clone(), &inner).await
        };
        let (switches, captured) = tokio::join!(recording, Box::pin(following));
        switches.and(captured)
    }

    async fn follow_homeserver(&self, sources: Sources, cancel: &CancellationToken) -> Result<(), Stop> {
        let session = self.establish(&sources, cancel).await?;
        self.say_started(&session, cancel).await?;
        suspension::resume(&self.recorder, &self.board, &session, &self.bot, &self.instructions, cancel)
            .await?;
        let result = self.run_parts(session, sources, cancel).await;
        if cancel.is_cancelled() { Ok(()) } else { result }
    }

    /// Tries until there is a session; every failure is a condition that says what to do. What happens in rooms is
    /// not seen from the first attempt on.
    async fn establish(&self, sources: &Sources, cancel: &CancellationToken) -> Result<Session, Stop> {
        let mut backoff = Backoff::default();
        let mut began = None;
        loop {
            let witness = self.recorder.cursor(IDENTITY_CURSOR, cancel).await?;
            let witness: Option<IdentityFacts> = witness.and_then(|text| serde_json::from_str(&text).ok());
            let began = *began.get_or_insert_with(|| self.recorder.clock().now());
            let attempt = tokio::select! {
                attempt = self.sessions.establish(witness.as_ref()) => attempt,
                () = cancel.cancelled() => return Err(Stop::Cancelled),
            };
            let error: SessionError = match attempt {
                Ok(session) => return Ok(session),
                Err(error) => error,
            };
            tracing::warn!(category = error.category(), %error, "no session");
            self.metrics.sync_error(error.category());
            let check = error.check();
            sources.set_since(Source::Rooms, Standing::Lagging(check.message.clone()), began);
            self.board.set(|report| report.encryption = check);
            if !backoff.wait(error.retry(), cancel).await {
                return Err(Stop::Cancelled);
            }
        }
    }

    async fn say_started(&self, session: &Session, cancel: &CancellationToken) -> Result<(), Stop> {
        let now = self.recorder.clock().now();
        let facts = serde_json::to_string(&session.identity).unwrap_or_default();
        let batch = Batch {
            drafts: vec![
                records::identity_finished(&self.bot, &session.identity, now),
                records::started(&self.bot, &self.run_id, session.device.as_str(), now),
            ],
            cursors: vec![(IDENTITY_CURSOR.to_owned(), facts)],
            ..Batch::default()
        };
        self.recorder.append(&batch, cancel).await?;
        self.board.set(|report| {
            report.device_id = Some(session.device.clone());
            report.encryption = check(&self.bot, session.trouble);
        });
        Ok(())
    }
}

/// Resolves when a part fails; those that end because they were asked to do not.
async fn first_failure(parts: &mut JoinSet<Result<(), Stop>>, cancel: &CancellationToken) -> Stop {
    while let Some(ended) = parts.join_next().await {
        if let Err(stop) = ended_early(ended, cancel) {
            return stop;
        }
    }
    std::future::pending().await
}

/// A part that ends without being asked to is a defect: the process ends, and starts anew.
pub(super) fn ended_early(
    ended: Result<Result<(), Stop>, tokio::task::JoinError>,
    cancel: &CancellationToken,
) -> Result<(), Stop> {
    match ended {
        Ok(Err(Stop::Cancelled) | Ok(())) if cancel.is_cancelled() => Ok(()),
        Ok(Ok(())) => Err(Stop::Broken("a part of the worker ended by itself".to_owned())),
        Ok(Err(stop)) => Err(stop),
        Err(error) => Err(Stop::Broken(error.to_string())),
    }
}
