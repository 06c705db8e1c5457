//! The loop: polls the list of rooms, visits those that changed, and backs off when the homeserver
//! asks for it or is slow.

mod polling;
mod price;
mod slots;
mod unlisted;
mod visits;

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

use self::{polling::Look, price::Price, slots::Slots, unlisted::Unlisted, visits::Job};
use super::{
    acts::ActLog,
    book::{RoomBook, Scribe},
    carry_out::{Context, Visit},
    entries::Entries,
    interface::{Control, CoverageState, Hint, Problem, RunnerSettings},
    pace::Pacer,
    planner::Identity,
    puppet::Puppet,
};
use crate::{
    domain::{
        Clock, RoomId,
        selection::{RoomSelection, WishMark},
    },
    homeserver::{Connect, Session},
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
                Some(look) = work.looking.join_next(), if !work.looking.is_empty() => work.looked(look),
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

/// The loop's state.
struct Work {
    context: Arc<Context>,
    settings: RunnerSettings,
    control: watch::Receiver<Control>,
    /// What the rooms are judged by, and its mark.
    selection: Arc<RoomSelection>,
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
    /// They were found since what is wished has changed.
    knows_excluded: bool,
    slots: Slots,
    /// What is being asked about all rooms, one thing at a time.
    looking: JoinSet<Look>,
    /// When the last list of all rooms was asked for that has come.
    listed_as_of: Option<Instant>,
    next_poll: Instant,
    /// Not before that, whatever there is to find.
    may_list_from: Instant,
    next_probe: Instant,
    next_short_list: Instant,
    probing: Price,
    listing: Price,
    excluding: Price,
    /// Number of rooms that somebody is in, as the homeserver counted them.
    inhabited: u64,
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
        let selection = Arc::new(control.borrow().selection.clone());
        let wishes = selection.mark(&runner.context.identity.bot);
        Self {
            context: Arc::clone(&runner.context),
            settings: runner.settings.clone(),
            control,
            selection,
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
            knows_excluded: false,
            slots: Slots::new(runner.settings.concurrency, runner.settings.visits_a_second, now),
            looking: JoinSet::new(),
            listed_as_of: None,
            next_poll: now,
            may_list_from: now,
            next_probe: now,
            next_short_list: now,
            probing: Price::one_part_of(10),
            listing: Price::one_part_of(20),
            excluding: Price::one_part_of(20),
            inhabited: 0,
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
        let now = Instant::now();
        let due = self.entries.next_due(self.free(now)).filter(|_| self.may_visit());
        let due = due.map(|due| due.max(self.quiet_until));
        let write = self.scribe.free_at().filter(|_| self.entries.has_changes());
        let wakes = [due, self.slots.opens_at(now), write, self.next_look()];
        wakes.into_iter().flatten().fold(now + LONGEST_POLL, Instant::min)
    }

    fn note_rooms(&mut self) {
        let now = Instant::now();
        if self.entries.has_changes() && self.scribe.free_at().is_some_and(|at| at <= now) {
            let changes = self.entries.take_changes(self.context.clock.now());
            self.scribe.write(changes, now);
        }
    }

    fn wishes_changed(&mut self) {
        let now = Instant::now();
        self.selection = Arc::new(self.control.borrow().selection.clone());
        self.wishes = self.selection.mark(&self.context.identity.bot);
        // What is on its way is about other wishes, or older than the end of a pause.
        self.looking = JoinSet::new();
        self.knows_excluded = false;
        self.next_poll = self.next_poll.min(now);
        self.entries.all_due(now);
    }

    fn hint(&mut self, hint: &Hint) {
        let now = Instant::now();
        let (Hint::Room(room) | Hint::Changed(room) | Hint::Joined(room) | Hint::Invited(room, _)) = hint;
        let is_listed = match hint {
            Hint::Joined(_) => self.entries.joined(room, now),
            Hint::Changed(_) => self.entries.hint(room, false, now),
            Hint::Room(_) | Hint::Invited(..) => self.entries.hint(room, true, now),
        };
        if !self.entries.are_listed() {
            self.early.insert(room.clone());
        }
        if !is_listed && let Hint::Invited(_, invitation) = hint {
            self.unlisted.add(room, invitation, now);
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
