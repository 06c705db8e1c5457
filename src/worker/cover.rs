//! Runs coverage beside capture, and says in the report how far it is.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::Instrument as _;

use super::{acts::Acts, board::Board, book::Book, ports::InstructionsReceiver, recorder::Stop};
use crate::{
    coverage::{
        Control, CoverageState, Runner, RunnerSettings,
        planner::{Identity, Obstacle},
    },
    domain::{
        Clock, UserId,
        selection::{Leave, RoomSelection},
        worker::Check,
    },
    homeserver::{Connect, Session},
};

/// Uncovered rooms are no trouble before this: a new room takes a moment.
const PATIENCE: Duration = Duration::from_mins(1);

/// How long a bot that is removed waits.
#[derive(Debug, Clone, Copy)]
pub struct Farewells {
    /// Nothing moved for so long: what is hindered now will be hindered later.
    pub standstill: Duration,
    /// So much time another bot that is removed with this one has to leave before it.
    pub others_first: Duration,
}

impl Default for Farewells {
    fn default() -> Self {
        Self { standstill: Duration::from_mins(10), others_first: Duration::from_secs(30) }
    }
}

/// What coverage is made of.
#[derive(Clone)]
pub struct Cover {
    /// Opens the homeserver.
    pub connect: Arc<dyn Connect>,
    /// Session of the worker's admin account.
    pub admin: Session,
    /// Records its acts, and passes on what sync sees.
    pub acts: Arc<Acts>,
    /// Dates its acts.
    pub clock: Arc<dyn Clock>,
}

impl Cover {
    /// Runs until cancelled. `may_join` is false while the device is not signed by its identity.
    pub(crate) async fn run(
        self,
        bot: UserId,
        book: Book,
        instructions: InstructionsReceiver,
        may_join: watch::Receiver<bool>,
        board: Board,
        cancel: CancellationToken,
    ) -> Result<(), Stop> {
        let server = instructions.borrow().server_name.clone();
        let runner = self.runner(Identity { bot, server }, book);
        let (control, wishes) = watch::channel(wishes(&instructions, &may_join));
        let (state, states) = watch::channel(CoverageState::default());
        let covering = runner.run(wishes, self.acts.listen(), state, cancel.child_token());
        let running = AbortOnDropHandle::new(tokio::spawn(covering.in_current_span()));
        tokio::select! {
            () = steer(control, instructions.clone(), may_join.clone()) => {}
            () = tell(states, &instructions, &may_join, &board, &self.acts) => {}
            () = cancel.cancelled() => {}
        }
        // It finishes the visits under way and ends its session.
        running.await.map_err(|error| Stop::Broken(format!("coverage: {error}")))
    }
}

impl Cover {
    fn runner(&self, identity: Identity, book: Book) -> Runner {
        Runner::new(
            self.connect.clone(),
            self.admin.clone(),
            identity,
            self.acts.clone(),
            Arc::new(book),
            self.clock.clone(),
            RunnerSettings::default(),
        )
    }

    /// Leaves every room, and makes somebody an admin before where the bot is the last one. Ends when all that can be left
    /// is left, when nothing moves any more (the operator leaves what is left over, without asking), or when it is not
    /// wanted any more. Rooms in which only another bot is an admin besides, which goes before this one, come last: it may
    /// be leaving, too, and of two that look at each other in the same moment neither would hand over.
    pub(crate) async fn farewell(
        &self,
        identity: Identity,
        instructions: InstructionsReceiver,
        board: &Board,
        pace: Farewells,
        cancel: &CancellationToken,
    ) -> Result<(), Stop> {
        // Who is in a room only for the bot's sake leaves before it.
        self.acts.load(cancel).await?;
        let others_first = Instant::now() + pace.others_first;
        let standstill = pace.standstill;
        let farewell = Farewell { cover: self, identity, instructions, board, standstill };
        if !farewell.leave(true, cancel).await? {
            return Ok(());
        }
        farewell.wait_for_others(others_first, cancel).await?;
        farewell.leave(false, cancel).await.map(drop)
    }
}

struct Farewell<'a> {
    cover: &'a Cover,
    identity: Identity,
    instructions: InstructionsReceiver,
    board: &'a Board,
    standstill: Duration,
}

impl Farewell<'_> {
    /// Waits so long, if the bot is still to leave then.
    async fn wait_for_others(&self, until: Instant, cancel: &CancellationToken) -> Result<(), Stop> {
        say(
            self.board,
            "it is still in rooms in which only another bot is an admin besides, and waits for a moment whether that one \
             leaves, too",
        );
        let mut instructions = self.instructions.clone();
        let called_off = instructions.wait_for(|told| !told.leaves_in_order());
        tokio::select! {
            () = tokio::time::sleep_until(until) => Ok(()),
            _ = called_off => Ok(()),
            () = cancel.cancelled() => Err(Stop::Cancelled),
        }
    }

    /// Leaves rooms for as long as that is wanted; whether the bot stayed in any for another one's sake.
    async fn leave(&self, patient: bool, cancel: &CancellationToken) -> Result<bool, Stop> {
        let mut instructions = self.instructions.clone();
        let selection = RoomSelection { leave: Leave::Everything { patient }, ..RoomSelection::default() };
        let paused = instructions.borrow_and_update().coverage_paused;
        let (control, wishes) = watch::channel(Control { selection, paused });
        let (state, mut states) = watch::channel(CoverageState::default());
        let ending = cancel.child_token();
        let book = self.cover.acts.open_book(cancel).await?;
        let runner = self.cover.runner(self.identity.clone(), book);
        let leaving = runner.run(wishes, self.cover.acts.listen(), state, ending.clone());
        let running = AbortOnDropHandle::new(tokio::spawn(leaving.in_current_span()));
        let (mut least, mut moved_at, mut is_done) = (u64::MAX, Instant::now(), false);
        while instructions.borrow().leaves_in_order() {
            let (pending, is_complete) = {
                let state = states.borrow_and_update();
                (state.totals.pending, state.is_complete)
            };
            is_done = is_complete && pending == 0;
            if is_done {
                break;
            }
            let paused = control.borrow().paused;
            say(self.board, &leaving_rooms(pending, paused));
            // Rooms that are made meanwhile are no progress. Who is told to wait does not stand still.
            if paused {
                (least, moved_at) = (u64::MAX, Instant::now());
            } else if (1..least).contains(&pending) {
                (least, moved_at) = (pending, Instant::now());
            }
            tokio::select! {
                changed = states.changed() => if changed.is_err() {
                    break;
                },
                changed = instructions.changed() => if changed.is_err() {
                    break;
                },
                () = tokio::time::sleep_until(moved_at + self.standstill), if !paused => {
                    tracing::warn!(rooms = pending, "some rooms cannot be left in good order");
                    break;
                }
                () = cancel.cancelled() => break,
            }
            let paused = instructions.borrow_and_update().coverage_paused;
            control.send_if_modified(|control| std::mem::replace(&mut control.paused, paused) != paused);
        }
        ending.cancel();
        running.await.map_err(|error| Stop::Broken(format!("leaving rooms: {error}")))?;
        // Of those that it is still in, it was not let out of the blocked ones.
        let state = states.borrow();
        let blocked: u64 = state.totals.blocked.values().sum();
        let stayed = is_done && state.ignored.len() as u64 > blocked;
        if cancel.is_cancelled() { Err(Stop::Cancelled) } else { Ok(stayed) }
    }
}

fn leaving_rooms(pending: u64, paused: bool) -> String {
    let how = if paused { "; the annotation ems.element.io/coverage-paused holds that up" } else { "" };
    format!("it leaves its rooms: {pending} are left to look at{how}")
}

/// How far a bot that is being deleted is: it neither records nor comes into rooms any more.
fn say(board: &Board, how_far: &str) {
    let check = || Check::unknown("LeavingRooms", format!("the bot is being deleted; {how_far}"));
    board.set(|report| (report.recording, report.rooms_covered) = (check(), check()));
}

fn wishes(instructions: &InstructionsReceiver, may_join: &watch::Receiver<bool>) -> Control {
    let instructions = instructions.borrow();
    Control {
        selection: instructions.rooms.clone(),
        paused: instructions.coverage_paused || !*may_join.borrow(),
    }
}

async fn steer(
    control: watch::Sender<Control>,
    mut instructions: InstructionsReceiver,
    mut may_join: watch::Receiver<bool>,
) {
    loop {
        let open = tokio::select! {
            changed = instructions.changed() => changed.is_ok(),
            changed = may_join.changed() => changed.is_ok(),
        };
        if !open {
            std::future::pending::<()>().await;
        }
        let new = wishes(&instructions, &may_join);
        // The custom resource changes with every write of its status, which is no reason to look at every room.
        control.send_if_modified(|control| {
            let is_new = *control != new;
            *control = new;
            is_new
        });
    }
}

async fn tell(
    mut states: watch::Receiver<CoverageState>,
    instructions: &InstructionsReceiver,
    may_join: &watch::Receiver<bool>,
    board: &Board,
    acts: &Acts,
) {
    let mut hindered_until = Instant::now();
    loop {
        let state = states.borrow_and_update().clone();
        if state.is_complete {
            acts.ignore(&state.ignored).await;
        }
        let paused = instructions.borrow().coverage_paused;
        let check = judge(&state, paused, *may_join.borrow(), &mut hindered_until, Instant::now());
        board.set(|report| {
            report.rooms = state.totals.clone();
            report.rooms_covered = check;
        });
        tokio::select! {
            changed = states.changed() => if changed.is_err() {
                std::future::pending::<()>().await;
            },
            () = tokio::time::sleep(Duration::from_secs(5)) => {}
        }
    }
}

/// The condition `RoomsCovered`.
fn judge(
    state: &CoverageState,
    paused: bool,
    may_join: bool,
    hindered_until: &mut Instant,
    now: Instant,
) -> Check {
    if paused || !may_join {
        *hindered_until = now;
    }
    if let Some(problem) = &state.problem {
        return Check::failed(
            "CoverageFailing",
            format!("rooms cannot be looked after: {}", problem.message),
        );
    }
    if paused {
        return Check::unknown("CoveragePaused", "the annotation ems.element.io/coverage-paused is set");
    }
    if !may_join {
        return Check::failed(
            "IdentityBroken",
            "no room is joined while the bot's identity is not in order; see the condition EncryptionReady",
        );
    }
    if !state.is_complete {
        return Check::unknown("Looking", "not every room has been looked at yet; see status.rooms");
    }
    let (final_ones, curable): (Vec<&str>, Vec<&str>) =
        state.totals.blocked.keys().partition(|reason| Obstacle::is_final_code(reason));
    if !curable.is_empty() {
        return Check::failed(
            "RoomsBlocked",
            format!("some rooms are not covered ({}); see status.rooms", curable.join(", ")),
        );
    }
    if state.oldest_pending.is_some_and(|since| now.duration_since(since.max(*hindered_until)) >= PATIENCE) {
        return Check::failed(
            "Lagging",
            "some rooms have been uncovered for more than a minute; see status.rooms",
        );
    }
    if final_ones.is_empty() {
        Check::ok("Covered", "the bot is in every room of its selection")
    } else {
        let reasons = final_ones.join(", ");
        let message = format!(
            "the bot is in every room of its selection that it can get into; see status.rooms for those that nobody can let it into ({reasons})"
        );
        Check::ok("Covered", message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{coverage::Problem, domain::worker::RoomTotals};

    fn state(pending: u64, blocked: u64) -> CoverageState {
        let mut totals = RoomTotals { covered: 1, pending, ..RoomTotals::default() };
        if blocked > 0 {
            totals.blocked.insert("refused", blocked);
        }
        CoverageState { is_complete: true, totals, ..CoverageState::default() }
    }

    #[test]
    fn a_room_may_be_uncovered_for_a_minute() {
        let start = Instant::now();
        let pending = CoverageState { oldest_pending: Some(start), ..state(1, 0) };
        let mut hindered_until = start;
        let mut after = |seconds, paused| {
            judge(&pending, paused, true, &mut hindered_until, start + Duration::from_secs(seconds))
        };
        assert_eq!(after(0, false).ok, Some(true));
        assert_eq!(after(59, false).ok, Some(true));
        assert_eq!(after(60, false).reason, "Lagging");
        assert_eq!(after(100, true).reason, "CoveragePaused");
        assert_eq!(after(159, false).ok, Some(true), "the pause is nobody's delay");
        assert_eq!(after(160, false).reason, "Lagging");
        // Where somebody makes rooms all the time there is always one.
        let another = CoverageState { oldest_pending: Some(start + PATIENCE), ..state(1, 0) };
        assert_eq!(judge(&another, false, true, &mut start.clone(), start + PATIENCE).ok, Some(true));
    }

    #[test]
    fn what_hinders_is_named() {
        let now = Instant::now();
        let judge = |state: &CoverageState, paused, may_join| {
            super::judge(state, paused, may_join, &mut now.clone(), now)
        };
        let blocked = judge(&state(0, 2), false, true);
        assert_eq!((blocked.ok, blocked.message.contains("refused")), (Some(false), true));
        let mut dead = state(0, 0);
        dead.totals.blocked.insert("nobody_local", 1);
        let dead = judge(&dead, false, true);
        assert_eq!((dead.ok, dead.message.contains("nobody_local")), (Some(true), true));
        assert_eq!(judge(&state(0, 0), true, true).reason, "CoveragePaused");
        assert_eq!(judge(&state(0, 0), false, false).reason, "IdentityBroken");
        let problem = Problem { category: "not_admin", message: "no admin".into() };
        let failing = CoverageState { problem: Some(problem), ..state(0, 0) };
        assert_eq!(judge(&failing, false, true).ok, Some(false));
        assert_eq!(judge(&CoverageState::default(), false, true).ok, None);
    }
}
