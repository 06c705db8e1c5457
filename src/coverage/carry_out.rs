//! One visit to one room: facts, plan, act, look again, until there is nothing left to do.

use std::sync::{Arc, atomic::AtomicU64};

use tokio::time::{Duration, Instant};

use super::{
    acts::ActLog,
    facts::{self, Surroundings},
    marks::Marks,
    memory::{JustNow, Memory},
    planner::{
        Exclusion, Identity, Invitation, MOST_REPEATS, Membership, Obstacle, Plan, Recalled, RoomFacts, Step,
        StepKind, excluded, excluded_unlisted, plan,
    },
    puppet::Puppet,
};
use crate::{
    domain::{Clock, RoomId, room::RoomState, selection::RoomSelection},
    homeserver::{Admin, HomeserverError, Result, RoomListing},
};

/// A room that needs more steps than this in one visit is visited again later.
const MOST_STEPS: usize = 12;

/// What every visit shares.
pub(super) struct Context {
    pub admin: Box<dyn Admin>,
    pub puppet: Puppet,
    pub log: Arc<dyn ActLog>,
    pub clock: Arc<dyn Clock>,
    pub identity: Identity,
    pub started_ms: i64,
    pub acts: AtomicU64,
}

/// Where a room stands after a visit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum State {
    #[default]
    Pending,
    Covered,
    Limited(Obstacle),
    Excluded(Exclusion),
    Blocked(Obstacle),
}

impl State {
    fn of(plan: &Plan) -> Self {
        match plan {
            Plan::Step(_) | Plan::Wait => Self::Pending,
            Plan::Covered => Self::Covered,
            Plan::Limited(reason) => Self::Limited(*reason),
            Plan::Excluded(reason) => Self::Excluded(*reason),
            Plan::Blocked(reason) => Self::Blocked(*reason),
        }
    }

    /// The state and the code of its reason.
    pub(super) fn told(self) -> (RoomState, Option<&'static str>) {
        match self {
            Self::Pending => (RoomState::Pending, None),
            Self::Covered => (RoomState::Covered, None),
            Self::Limited(reason) => (RoomState::Limited, Some(reason.as_str())),
            Self::Excluded(reason) => (RoomState::Excluded, Some(reason.as_str())),
            Self::Blocked(reason) => (RoomState::Blocked, Some(reason.as_str())),
        }
    }
}

/// Why a visit ended early.
#[derive(Debug)]
pub(super) enum VisitError {
    Homeserver(HomeserverError),
    Log,
}

impl From<HomeserverError> for VisitError {
    fn from(error: HomeserverError) -> Self {
        Self::Homeserver(error)
    }
}

/// Where the bot stands in a room, whatever is to be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    pub is_joined: bool,
    /// The selection leaves the room out: nothing of it is recorded, also while the bot cannot leave.
    pub is_excluded: bool,
}

/// The result of a visit.
#[derive(Debug)]
pub(super) struct Visit {
    pub state: State,
    pub memory: Memory,
    /// What decides is not known yet, and will be in a moment.
    pub waits: bool,
    /// Steps that were carried out.
    pub acted: u32,
    /// Where the bot was seen to be; unknown if it could not be looked at.
    pub standing: Option<Standing>,
    /// When a look at the whole state began, or an act ended that told it, unless there was none.
    pub seen_at: Option<Instant>,
    /// How many state events it was last seen to have.
    pub state_events: Option<u64>,
    /// How long the homeserver took at most to say how the room is, or for a step that it takes alone.
    pub slowest: Option<Duration>,
    pub error: Option<VisitError>,
}

impl Visit {
    fn new(memory: Memory) -> Self {
        Self {
            state: State::Pending,
            memory,
            waits: false,
            acted: 0,
            standing: None,
            seen_at: None,
            state_events: None,
            slowest: None,
            error: None,
        }
    }
}

/// The room and the wishes of one visit.
pub(super) struct Errand<'a> {
    pub listing: &'a RoomListing,
    pub selection: &'a RoomSelection,
    pub around: Surroundings,
    /// Whether acting is allowed, asked before every act.
    pub may_act: &'a (dyn Fn() -> bool + Send + Sync),
}

impl Context {
    /// Visits a room.
    pub(super) async fn visit(&self, mut errand: Errand<'_>, memory: Memory) -> Visit {
        let memory = Memory { just_now: JustNow::default(), ..memory };
        let mut visit = Visit::new(memory);
        if let Err(error) = self.try_visit(&mut errand, &mut visit).await {
            if let VisitError::Homeserver(HomeserverError::Refused { .. }) = &error {
                visit.state = State::Blocked(Obstacle::Refused);
            }
            visit.error = Some(error);
        }
        visit
    }

    async fn try_visit(
        &self,
        errand: &mut Errand<'_>,
        visit: &mut Visit,
    ) -> std::result::Result<(), VisitError> {
        errand.around.recalled = self.log.recalled(&errand.listing.room_id);
        errand.around.unhelpful.clone_from(&visit.memory.unhelpful);
        let (mut facts, mut marks) = self.look(errand, visit).await?;
        // What is so after the last step was not looked at.
        let mut is_expected = false;
        for _ in 0..MOST_STEPS {
            visit.memory.apply_to(&mut facts, &self.identity);
            let plan = plan(&facts, errand.selection, &self.identity);
            self.forget_who_left(&facts, &plan, errand).await?;
            if is_expected && is_written_from(&plan) {
                (facts, marks) = self.look(errand, visit).await?;
                is_expected = false;
                continue;
            }
            visit.state = State::of(&plan);
            visit.waits = matches!(plan, Plan::Wait);
            // Whoever is asked for a notice later does not owe it to rooms where they have been for long.
            visit.memory.is_greeted |= matches!(plan, Plan::Covered | Plan::Limited(_));
            let Plan::Step(step) = plan else { return Ok(()) };
            if !(errand.may_act)() {
                return Ok(());
            }
            if let Step::PostNotice(notice) = &step
                && !visit.memory.just_now.joined
                && self.has_posted(&facts.room_id, notice).await?
            {
                visit.memory.is_greeted = true;
                continue;
            }
            let act = self.intend(&facts.room_id, &step).await?;
            if matches!(step, Step::Recall { .. } | Step::Return { .. }) {
                errand.around.recalled.clone_from(&act.person);
            }
            let started = Instant::now();
            let result = self.perform(&facts.room_id, &step, &act).await;
            if is_answered_here(&step, &facts) {
                visit.slowest = visit.slowest.max(Some(started.elapsed()));
            }
            visit.acted += 1;
            visit.memory.after(&step, &facts, result.is_ok());
            errand.around.is_joined = match step.kind() {
                StepKind::Join => result.is_ok() || errand.around.is_joined,
                StepKind::Leave => result.is_err(),
                _ => errand.around.is_joined,
            };
            let expected = expected(&step, &result, &facts);
            is_expected = expected.is_some();
            let looked = match expected {
                Some(facts) => {
                    visit.standing = Some(self.standing(&facts, errand));
                    visit.seen_at = Some(Instant::now());
                    Ok((facts, marks.clone()))
                }
                None => self.look(errand, visit).await,
            };
            self.record(&act, &result, &marks, looked.as_ref().map(|(_, marks)| marks)).await;
            match (result, unhelpful(&step, &facts)) {
                (
                    Err(
                        HomeserverError::Refused { .. }
                        | HomeserverError::NotFound { .. }
                        | HomeserverError::Locked { .. },
                    ),
                    Some(person),
                ) => {
                    tracing::info!(room = %facts.room_id, person, step = step.kind().as_str(), "no help for a room");
                    visit.memory.unhelpful.push(person.clone());
                    errand.around.unhelpful.push(person);
                    // What was seen was judged with that person.
                    (facts, marks) = self.look(errand, visit).await?;
                }
                // Better a room without an admin than one that the bot does not get out of.
                (Err(HomeserverError::Refused { .. }), None) if step.kind() == StepKind::HandOver => {
                    visit.memory.repeated = Some((StepKind::HandOver, MOST_REPEATS));
                    (facts, marks) = looked?;
                }
                (result, _) => {
                    result?;
                    (facts, marks) = looked?;
                }
            }
        }
        Ok(())
    }

    /// Whoever was brought back and is gone again, whoever made them leave, is not to be made to
    /// leave later, when they come by themselves.
    async fn forget_who_left(
        &self,
        facts: &RoomFacts,
        plan: &Plan,
        errand: &mut Errand<'_>,
    ) -> std::result::Result<(), VisitError> {
        let is_needed = matches!(plan, Plan::Step(Step::Recall { .. } | Step::Return { .. }));
        if is_needed || facts.recalled.as_ref().is_none_or(Recalled::is_there) {
            return Ok(());
        }
        errand.around.recalled = None;
        self.log.forget_recalled(&facts.room_id).await.map_err(|error| {
            tracing::warn!(room = %facts.room_id, error = %error, "cannot note who left");
            VisitError::Log
        })
    }

    async fn look(&self, errand: &Errand<'_>, visit: &mut Visit) -> Result<(RoomFacts, Marks)> {
        let (admin, selection, identity) = (&*self.admin, errand.selection, &self.identity);
        let started = Instant::now();
        let seen = facts::gather(admin, errand.listing, selection, identity, &errand.around).await;
        visit.slowest = visit.slowest.max(Some(started.elapsed()));
        let mut seen = seen?;
        visit.standing = Some(self.standing(&seen.facts, errand));
        if let Some(number) = seen.state_events() {
            (visit.state_events, visit.seen_at) = (Some(number), Some(started));
        }
        facts::ask_for_heir(admin, &mut seen, selection, identity).await?;
        Ok((seen.facts, seen.marks))
    }

    fn standing(&self, facts: &RoomFacts, errand: &Errand<'_>) -> Standing {
        Standing {
            is_joined: facts.membership == Membership::Joined,
            is_excluded: excluded(facts, errand.selection, &self.identity).is_some(),
        }
    }

    /// Refuses or accepts an invitation to a room that the homeserver does not list.
    pub(super) async fn answer_unlisted(
        &self,
        room: &RoomId,
        invitation: &Invitation,
        in_excluded_space: bool,
        selection: &RoomSelection,
    ) -> Visit {
        let step = match excluded_unlisted(room, invitation, in_excluded_space, selection) {
            Some(reason) => Step::RefuseInvitation(reason),
            None => Step::Join { via: Vec::new() },
        };
        let mut visit = Visit::new(Memory::default());
        match self.intend(room, &step).await {
            Ok(act) => {
                let result = self.perform(room, &step, &act).await;
                visit.acted = 1;
                let unknown = Marks::default();
                self.record(&act, &result, &unknown, Ok(&unknown)).await;
                visit.error = result.err().map(VisitError::Homeserver);
            }
            Err(error) => visit.error = Some(error),
        }
        visit
    }
}

/// What is so after a step of which the homeserver's answer tells it all. Whether another bot undid something in the same
/// moment, the look tells that follows every act a few seconds later.
fn expected(step: &Step, result: &Result<()>, facts: &RoomFacts) -> Option<RoomFacts> {
    // The state of a room that nobody here is in may be an old one.
    let is_joined = step.kind() == StepKind::Join && result.is_ok() && facts.has_local_members;
    is_joined.then(|| RoomFacts { membership: Membership::Joined, ..facts.clone() })
}

/// Whether the next step writes all of a state event, from what was so before the last one: somebody else may have changed it.
fn is_written_from(plan: &Plan) -> bool {
    matches!(plan, Plan::Step(Step::Raise { .. } | Step::MarkFunctional(_)))
}

/// Whether the time that the step takes is this homeserver's: not other servers', nor that of signing a person in.
fn is_answered_here(step: &Step, facts: &RoomFacts) -> bool {
    match step {
        Step::MakeAdmin { .. } => true,
        Step::Join { .. } => facts.has_local_members,
        _ => false,
    }
}

/// Who is of no use if this step is refused.
fn unhelpful(step: &Step, facts: &RoomFacts) -> Option<String> {
    match step {
        Step::MakeAdmin { .. } => facts
            .recalled
            .as_ref()
            .filter(|recalled| recalled.is_there())
            .map(|recalled| recalled.user.clone()),
        Step::Unban { on_behalf_of } | Step::Raise { on_behalf_of, .. } | Step::Invite { on_behalf_of } => {
            Some(on_behalf_of.clone())
        }
        Step::Recall { user, .. } | Step::Return { user } => Some(user.clone()),
        Step::Release { .. }
        | Step::Join { .. }
        | Step::RefuseInvitation(_)
        | Step::HandOver { .. }
        | Step::Leave(_)
        | Step::MarkFunctional(_)
        | Step::PostNotice(_) => None,
    }
}
