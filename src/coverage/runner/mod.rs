//! The loop: polls the list of rooms, visits those that changed, and backs off when the homeserver
//! asks for it or is slow.

mod polling;
mod price;
mod slots;
mod unlisted;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, atomic::AtomicU64},
};

use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Duration, Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use self::{price::Price, slots::Slots, unlisted::Unlisted};
use super::{
    acts::ActLog,
    book::{RoomBook, Scribe},
    carry_out::{Context, Errand, Visit, VisitError},
    entries::Entries,
    facts::Surroundings,
    interface::{Control, CoverageState, Hint, Problem, RunnerSettings},
    memory::Memory,
    pace::Pacer,
    planner::Identity,
    puppet::Puppet,
    schedule::{Due, Free},
};
use crate::{
    domain::{Clock, Failure, RoomId, selection::WishMark},
    homeserver::{Connect, HomeserverError, Session},
};

/// The loop's parts; [`Self::run`] runs it.
pub struct Runner {
    context: Arc<Context>,
    book: Arc<dyn RoomBook>,
    settings: RunnerSettings,
}

impl Runner {
    /// A loop for one bot, with the session of the admin account that it works with.
    pub fn new(
        connect: Arc<dyn Connect>,
        admin: Session,
        identity: Identity,
        log: Arc<dyn ActLog>,
        book: Arc<dyn RoomBook>,
        clock: Arc<dyn Clock>,
        settings: RunnerSettings,
    ) -> Self {
        let context = Context {
            admin: connect.admin(admin),
            puppet: Puppet::new(connect, identity.bot.clone()),
            log,
            started_ms: clock.now().as_millisecond(),
            clock,
            identity,
            acts: AtomicU64::new(0),
        };
        Self { context: Arc::new(context), book, settings }
    }

    /// Runs until cancelled; then finishes the visits under way and ends the bot's session.
    pub async fn run(
        self,
        control: watch::Receiver<Control>,
        mut hints: mpsc::UnboundedReceiver<Hint>,
        state: watch::Sender<CoverageState>,
        cancel: CancellationToken,
    ) {
        let mut wishes = control.clone();
        let mut work = Work::new(&self, control, state, cancel.clone());
        let mut hints_open = true;
        let mut control_open = true;
        loop {
            work.step().await;
            let wake = work.next_wake();
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                changed = wishes.changed(), if control_open => match changed {
                    Ok(()) => work.wishes_changed(),
                    Err(_) => control_open = false,
                },
                hint = hints.recv(), if hints_open => match hint {
                    Some(hint) => work.hint(&hint),
                    None => hints_open = false,
                },
                Some(ended) = work.jobs.join_next_with_id(), if !work.jobs.is_empty() => work.ended(ended),
                () = work.scribe.written() => {}
                () = sleep_until(wake) => {}
            }
        }
        while let Ok(hint) = hints.try_recv() {
            work.hint(&hint);
        }
        work.finish().await;
        self.context.puppet.end().await;
    }
}

type Ended = Result<(tokio::task::Id, Visit), tokio::task::JoinError>;

/// What is done in a room.
#[derive(Debug)]
enum Job {
    Visit(Due),
    /// To an invitation.
    Answer(RoomId),
}

/// The loop's state.
struct Work {
    context: Arc<Context>,
    settings: RunnerSettings,
    control: watch::Receiver<Control>,
    /// Those that the rooms are judged by.
    wishes: WishMark,
    state: watch::Sender<CoverageState>,
    cancel: CancellationToken,
    entries: Entries,
    jobs: JoinSet<Visit>,
    rooms_of_jobs: HashMap<tokio::task::Id, Job>,
    unlisted: Unlisted,
    /// Where something happened before the rooms were known.
    early: HashSet<RoomId>,
    excluded: Arc<HashSet<RoomId>>,
    excluded_until: Instant,
    slots: Slots,
    next_poll: Instant,
    next_probe: Instant,
    next_short_list: Instant,
    probing: Price,
    listing: Price,
    /// Number of rooms that were listed, as the homeserver counts them.
    listed: u64,
    quiet_until: Instant,
    poll_failures: u32,
    problem: Option<Problem>,
    is_complete: bool,
    pacer: Pacer,
    scribe: Scribe,
    /// What earlier processes noted is known.
    has_read: bool,
}

const LISTING_LAG: Duration = Duration::from_secs(5);
const LONGEST_POLL: Duration = Duration::from_mins(1);
const GRACE: Duration = Duration::from_secs(10);

impl Work {
    fn new(
        runner: &Runner,
        control: watch::Receiver<Control>,
        state: watch::Sender<CoverageState>,
        cancel: CancellationToken,
    ) -> Self {
        let now = Instant::now();
        let wishes = control.borrow().selection.mark(&runner.context.identity.bot);
        Self {
            context: Arc::clone(&runner.context),
            settings: runner.settings.clone(),
            control,
            wishes,
            state,
            cancel,
            entries: Entries::new(runner.settings.recheck),
            jobs: JoinSet::new(),
            rooms_of_jobs: HashMap::new(),
            unlisted: Unlisted::default(),
            early: HashSet::new(),
            excluded: Arc::default(),
            excluded_until: now,
            slots: Slots::new(runner.settings.concurrency, now),
            next_poll: now,
            next_probe: now,
            next_short_list: now,
            probing: Price::default(),
            listing: Price::default(),
            listed: 0,
            quiet_until: now,
            poll_failures: 0,
            problem: None,
            is_complete: false,
            pacer: Pacer::new(now),
            scribe: Scribe::new(Arc::clone(&runner.book), now),
            has_read: false,
        }
    }

    async fn step(&mut self) {
        let cancel = self.cancel.clone();
        tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            () = self.look_around() => {}
        }
        self.dispatch();
        self.note_rooms();
        self.publish();
    }

    fn next_wake(&self) -> Instant {
        let due = self.entries.next_due(self.free()).filter(|_| self.problem.is_none());
        let due = due.map(|due| due.max(self.quiet_until));
        let write = self.scribe.free_at().filter(|_| self.entries.has_changes());
        [due, write].into_iter().flatten().fold(self.next_look(), Instant::min)
    }

    fn note_rooms(&mut self) {
        let now = Instant::now();
        if self.entries.has_changes() && self.scribe.free_at().is_some_and(|at| at <= now) {
            let changes = self.entries.take_changes(self.context.clock.now());
            self.scribe.write(changes, now);
        }
    }

    fn free(&self) -> Free {
        let is_urgent = |job: &&Job| matches!(job, Job::Visit(Due { is_urgent: true, .. }));
        let urgent = self.rooms_of_jobs.values().filter(is_urgent).count();
        self.slots.free(urgent, self.rooms_of_jobs.len() - urgent)
    }

    fn wishes_changed(&mut self) {
        self.wishes = self.control.borrow().selection.mark(&self.context.identity.bot);
        self.excluded_until = Instant::now();
        self.next_poll = self.next_poll.min(Instant::now());
        self.entries.all_due(Instant::now());
    }

    fn hint(&mut self, hint: &Hint) {
        let now = Instant::now();
        let (Hint::Room(room) | Hint::Changed(room) | Hint::Joined(room) | Hint::Invited(room)) = hint;
        let is_listed = match hint {
            Hint::Joined(_) => self.entries.joined(room, now),
            Hint::Changed(_) => self.entries.hint(room, false, now),
            Hint::Room(_) | Hint::Invited(_) => self.entries.hint(room, true, now),
        };
        if !self.entries.are_listed() {
            self.early.insert(room.clone());
        }
        if !is_listed && matches!(hint, Hint::Invited(_)) {
            self.unlisted.add(room, now);
        }
    }

    fn dispatch(&mut self) {
        let now = Instant::now();
        if self.problem.is_some() || now < self.quiet_until || self.cancel.is_cancelled() {
            return;
        }
        self.dispatch_unlisted(now);
        for due in self.entries.take_due(now, self.free()) {
            let Some(entry) = self.entries.get(&due.room) else { continue };
            let listing = entry.listing.clone();
            let memory: Memory = entry.memory.clone();
            let around = Surroundings {
                is_joined: entry.standing.is_joined,
                in_excluded_space: self.excluded.contains(&due.room),
                now_ms: self.context.clock.now().as_millisecond(),
                ..Surroundings::default()
            };
            let context = Arc::clone(&self.context);
            let control = self.control.clone();
            let cancel = self.cancel.clone();
            let visit = async move {
                let selection = control.borrow().selection.clone();
                // What is wished may change at any moment, and is judged anew then.
                let may_act = || {
                    let wished = control.borrow();
                    !cancel.is_cancelled() && !wished.paused && wished.selection == selection
                };
                let (listing, selection) = (&listing, &selection);
                let errand = Errand { listing, selection, around, may_act: &may_act };
                context.visit(errand, memory).await
            };
            let job = self.jobs.spawn(visit.in_current_span());
            self.rooms_of_jobs.insert(job.id(), Job::Visit(due));
        }
    }

    fn ended(&mut self, ended: Ended) {
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

    fn publish(&mut self) {
        let mut totals = self.entries.totals().clone();
        totals.pace = self.pacer.pace(totals.pending, Instant::now());
        if self.poll_failures == 0 && self.problem.is_none() && self.entries.are_judged() {
            self.is_complete = true;
        }
        let new = CoverageState {
            is_complete: self.is_complete,
            totals,
            oldest_pending: self.entries.oldest_pending(),
            ignored: Arc::clone(self.entries.ignored()),
            problem: self.problem.clone(),
        };
        self.state.send_if_modified(|old| {
            let changed = *old != new;
            *old = new;
            changed
        });
    }

    async fn finish(&mut self) {
        let all = async {
            while let Some(ended) = self.jobs.join_next_with_id().await {
                self.ended(ended);
            }
        };
        if timeout(GRACE, all).await.is_err() {
            tracing::warn!("ending before every visit to a room has finished");
        }
        self.jobs.shutdown().await;
        let log = Arc::clone(&self.context.log);
        self.entries.close(self.wishes, |room| log.recalled(room).is_some(), Instant::now());
        let last = async {
            while self.entries.has_changes() || self.scribe.free_at().is_none() {
                if self.scribe.free_at().is_none() {
                    self.scribe.written().await;
                } else {
                    let changes = self.entries.take_changes(self.context.clock.now());
                    self.scribe.write(changes, Instant::now());
                }
            }
        };
        if timeout(GRACE, last).await.is_err() {
            tracing::warn!("ending before everything that is known of rooms is noted");
        } else if self.has_read {
            match timeout(GRACE, self.scribe.close()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "the next start looks at every room"),
                Err(_) => tracing::warn!("the database does not answer; the next start looks at every room"),
            }
        }
    }
}
