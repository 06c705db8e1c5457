//! What the loop remembers of a room between two visits.

use super::planner::{self, Identity, RoomFacts, Step, StepKind};

/// What a visit has done that the room may not show yet.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct JustNow {
    /// Wrote the functional members. Another bot may be writing them at this moment, so only a later visit can tell that the
    /// bot stays among them.
    pub marked: bool,
    /// Made the bot join: what it is to say there, it has not said yet.
    pub joined: bool,
}

/// What is remembered of a room between visits.
#[derive(Debug, Clone, Default)]
pub(super) struct Memory {
    pub was_functional_member: bool,
    /// Has said what it is since it came, or did not have to.
    pub is_greeted: bool,
    pub repeated: Option<(StepKind, u32)>,
    /// What this visit did.
    pub just_now: JustNow,
    /// People in whose name nothing could be done.
    pub unhelpful: Vec<String>,
    /// The last step with the facts it was planned on.
    pub last: Option<(StepKind, RoomFacts)>,
}

impl Memory {
    /// Puts what is remembered into fresh facts, after learning from them.
    pub(super) fn apply_to(&mut self, facts: &mut RoomFacts, identity: &Identity) {
        let listed = facts.direct.as_ref().is_some_and(|direct| {
            planner::listed_functional_members(direct.functional_members.as_ref())
                .iter()
                .any(|member| member == identity.bot.as_str())
        });
        self.was_functional_member |= listed && !self.just_now.marked;
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
        facts.owes_notice = !self.is_greeted;
        facts.repeated = self.repeated;
    }

    pub(super) fn after(&mut self, step: &Step, facts: &RoomFacts, succeeded: bool) {
        match step.kind() {
            StepKind::Join if succeeded => (self.is_greeted, self.just_now.joined) = (false, true),
            StepKind::PostNotice if succeeded => self.is_greeted = true,
            StepKind::MarkFunctional if succeeded => self.just_now.marked = true,
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

    /// What was tried without success may be tried again: something has happened.
    pub(super) fn start_afresh(&mut self) {
        self.repeated = None;
        self.unhelpful.clear();
    }
}
