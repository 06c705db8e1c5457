//! One visit to one room: facts, plan, act, look again, until there is nothing left to do.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::{
    acts::{Act, ActLog, ActOutcome, SentEvent},
    facts::{self, Marks, Surroundings},
    planner::{Exclusion, Identity, Obstacle, Plan, RoomFacts, Step, StepKind, plan},
    puppet::Puppet,
};
use crate::{
    domain::{Clock, Failure, RoomId, selection::RoomSelection},
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

/// What is remembered of a room between visits.
#[derive(Debug, Clone, Default)]
pub(super) struct Memory {
    pub was_functional_member: bool,
    pub owes_notice: bool,
    pub repeated: Option<(StepKind, u32)>,
    /// This visit wrote the functional members. Another bot may be writing them at this moment, so
    /// only a later visit can tell that the bot stays among them.
    pub just_marked: bool,
    /// The last step with the facts it was planned on.
    pub last: Option<(StepKind, RoomFacts)>,
}

/// Where a room stands after a visit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum State {
    #[default]
    Pending,
    Covered,
    Excluded(Exclusion),
    Blocked(Obstacle),
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

/// The result of a visit.
#[derive(Debug)]
pub(super) struct Visit {
    pub state: State,
    pub memory: Memory,
    /// Steps that were carried out.
    pub acted: u32,
    pub error: Option<VisitError>,
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
        let memory = Memory { just_marked: false, ..memory };
        let mut visit = Visit { state: State::Pending, memory, acted: 0, error: None };
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
        let (mut facts, mut marks) = self.look(errand).await?;
        for _ in 0..MOST_STEPS {
            visit.memory.apply_to(&mut facts, &self.identity);
            let (step, state) = match plan(&facts, errand.selection, &self.identity) {
                Plan::Covered => (None, State::Covered),
                Plan::Excluded(reason) => (None, State::Excluded(reason)),
                Plan::Blocked(reason) => (None, State::Blocked(reason)),
                Plan::Step(step) => (Some(step), State::Pending),
            };
            visit.state = state;
            let Some(step) = step.filter(|_| (errand.may_act)()) else { return Ok(()) };
            let act = self.intend(&facts.room_id, &step).await?;
            let result = self.carry_out(&facts.room_id, &step, &act).await;
            visit.acted += 1;
            visit.memory.after(&step, &facts, result.is_ok());
            errand.around.is_joined = match step.kind() {
                StepKind::Join => result.is_ok() || errand.around.is_joined,
                StepKind::Leave => result.is_err(),
                _ => errand.around.is_joined,
            };
            let looked = self.look(errand).await;
            self.record(&act, &result, &marks, looked.as_ref().map(|(_, marks)| marks)).await;
            result?;
            (facts, marks) = looked?;
        }
        Ok(())
    }

    async fn look(&self, errand: &Errand<'_>) -> Result<(RoomFacts, Marks)> {
        facts::gather(&*self.admin, errand.listing, errand.selection, &self.identity, &errand.around).await
    }

    async fn intend(&self, room: &RoomId, step: &Step) -> std::result::Result<Act, VisitError> {
        let act = Act {
            id: format!("coverage:{}:{}", self.started_ms, self.acts.fetch_add(1, Ordering::Relaxed)),
            room_id: room.clone(),
            kind: step.kind(),
            on_behalf_of: match step {
                Step::MakeAdmin { on_behalf_of } => Some(on_behalf_of.clone()),
                _ => None,
            },
            reason: match step {
                Step::RefuseInvitation(reason) | Step::Leave(reason) => reason.as_str(),
                _ => "coverage",
            },
        };
        match self.log.intend(&act).await {
            Ok(()) => Ok(act),
            Err(error) => {
                tracing::warn!(%room, step = step.kind().as_str(), error = %error, "not done, since it cannot be recorded");
                Err(VisitError::Log)
            }
        }
    }

    async fn carry_out(&self, room: &RoomId, step: &Step, act: &Act) -> Result<()> {
        let admin = &*self.admin;
        match step {
            Step::MakeAdmin { .. } => admin.make_room_admin(room, &self.identity.bot).await,
            Step::Join => {
                let room = room.clone();
                self.puppet
                    .act(admin, move |bot| {
                        let room = room.clone();
                        async move { bot.join(&room).await }
                    })
                    .await
            }
            Step::RefuseInvitation(_) | Step::Leave(_) => {
                let room = room.clone();
                self.puppet
                    .act(admin, move |bot| {
                        let room = room.clone();
                        async move { bot.leave(&room).await }
                    })
                    .await
            }
            Step::MarkFunctional(content) => {
                let (room, content) = (room.clone(), content.clone());
                let write = move |bot: Box<dyn crate::homeserver::User>| {
                    let (room, content) = (room.clone(), content.clone());
                    async move { bot.put_state(&room, super::planner::FUNCTIONAL_MEMBERS, "", &content).await }
                };
                self.puppet.act(admin, write).await
            }
            Step::PostNotice(notice) => {
                let content = serde_json::json!({ "msgtype": "m.notice", "body": notice });
                let (room, id) = (room.clone(), act.id.clone());
                let post = move |bot: Box<dyn crate::homeserver::User>| {
                    let (room, id, content) = (room.clone(), id.clone(), content.clone());
                    async move { bot.send(&room, "m.room.message", &id, &content).await }
                };
                self.puppet.act(admin, post).await
            }
        }
    }

    /// Records how an act ended, with what it made the homeserver send in somebody's name.
    async fn record(
        &self,
        act: &Act,
        result: &Result<()>,
        before: &Marks,
        after: std::result::Result<&Marks, &HomeserverError>,
    ) {
        let sent = match (act.kind, after) {
            (StepKind::MakeAdmin, Ok(after)) => self.sent(before, after),
            _ => Vec::new(),
        };
        let outcome = match (result, after) {
            (Err(error), _) => ActOutcome::Failed { category: error.category(), sent },
            (Ok(()), Err(_)) if act.kind == StepKind::MakeAdmin => {
                ActOutcome::Failed { category: "unverified", sent }
            }
            (Ok(()), _) => ActOutcome::Done { sent },
        };
        if let Err(error) = self.log.outcome(act, &outcome).await {
            tracing::warn!(room = %act.room_id, act = act.id, error = %error, "outcome cannot be recorded");
        }
    }

    fn sent(&self, before: &Marks, after: &Marks) -> Vec<SentEvent> {
        let pairs = [
            ("m.room.power_levels", &before.power_levels, &after.power_levels),
            ("m.room.member", &before.membership, &after.membership),
        ];
        let new = pairs.into_iter().filter(|(_, before, after)| before != after);
        let event = |event_type: &str, mark: &Option<(String, String)>| {
            let (event_id, sender) = mark.clone()?;
            (sender != self.identity.bot.as_str()).then(|| SentEvent {
                event_id,
                event_type: event_type.to_owned(),
                sender,
            })
        };
        new.filter_map(|(event_type, _, after)| event(event_type, after)).collect()
    }

    /// Refuses or accepts an invitation to a room that the homeserver does not list.
    pub(super) async fn answer_unlisted(&self, room: &RoomId, selection: &RoomSelection) -> Visit {
        let step = match super::planner::excluded_unlisted(room, selection) {
            Some(reason) => Step::RefuseInvitation(reason),
            None => Step::Join,
        };
        let mut visit = Visit { state: State::Pending, memory: Memory::default(), acted: 0, error: None };
        match self.intend(room, &step).await {
            Ok(act) => {
                let result = self.carry_out(room, &step, &act).await;
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

impl Memory {
    /// Puts what is remembered into fresh facts, after learning from them.
    fn apply_to(&mut self, facts: &mut RoomFacts, identity: &Identity) {
        let listed = facts.direct.as_ref().is_some_and(|direct| {
            super::planner::listed_functional_members(direct.functional_members.as_ref())
                .iter()
                .any(|member| member == identity.bot.as_str())
        });
        self.was_functional_member |= listed && !self.just_marked;
        match &self.last {
            Some((kind, before)) if before == facts => {
                let times = match self.repeated {
                    Some((same, times)) if same == *kind => times + 1,
                    _ => 1,
                };
                self.repeated = Some((*kind, times));
            }
            Some(_) => self.repeated = None,
            None => {}
        }
        self.last = None;
        facts.was_functional_member = self.was_functional_member;
        facts.owes_notice = self.owes_notice;
        facts.repeated = self.repeated;
    }

    fn after(&mut self, step: &Step, facts: &RoomFacts, succeeded: bool) {
        match step.kind() {
            StepKind::Join if succeeded => self.owes_notice = true,
            StepKind::PostNotice if succeeded => self.owes_notice = false,
            StepKind::MarkFunctional if succeeded => self.just_marked = true,
            _ => {}
        }
        // A step that failed may well be repeated, after a delay.
        if !succeeded {
            return;
        }
        let plain =
            RoomFacts { was_functional_member: false, owes_notice: false, repeated: None, ..facts.clone() };
        self.last = Some((step.kind(), plain));
    }
}
