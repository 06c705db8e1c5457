//! Facts about one room in, the next step out. No client, no clock, no memory of its own.
//!
//! Rules that hold for every plan: a room without `m.room.power_levels` is not touched (it is being
//! created, and power given now destroys it); nothing is done for a banned bot; an invitation to a
//! room outside the selection is refused. A step that has been carried out several times without
//! changing anything is not planned again.

mod exclusion;
mod power;
mod reasons;
#[cfg(test)]
mod tests;

use serde_json::{Value, json};

pub use self::{
    exclusion::excluded_unlisted,
    power::{Grant, Power, PowerFacts, content, read_power},
    reasons::{Exclusion, Obstacle},
};
use crate::domain::{RoomId, ServerName, UserId, selection::RoomSelection};

/// After so many times without effect a step is given up.
pub const MOST_REPEATS: u32 = 5;

/// State event type by which clients leave service members out of a chat's name and face.
pub const FUNCTIONAL_MEMBERS: &str = "io.element.functional_members";

/// The bot's membership of a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Membership {
    /// Never had one, left, or was kicked; a knock counts as none.
    #[default]
    Outside,
    /// Is invited.
    Invited,
    /// Is in.
    Joined,
    /// Is banned.
    Banned,
}

/// What is known of a direct chat.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DirectChat {
    /// Everybody in it but the bot.
    pub people: Vec<String>,
    /// Content of [`FUNCTIONAL_MEMBERS`], if there is one.
    pub functional_members: Option<Value>,
    /// Who wrote that.
    pub marked_by: Option<String>,
}

/// Everything that decides what a room needs.
#[expect(clippy::struct_excessive_bools, reason = "facts that are independent of each other")]
#[derive(Debug, Clone, PartialEq)]
pub struct RoomFacts {
    /// The room.
    pub room_id: RoomId,
    /// Its creator, if known.
    pub creator: Option<String>,
    /// Everybody may join.
    pub is_public: bool,
    /// Somebody of this server is in it.
    pub has_local_members: bool,
    /// The bot's membership.
    pub membership: Membership,
    /// Who has which power.
    pub power: Power,
    /// Set if it is a direct chat.
    pub direct: Option<DirectChat>,
    /// Is an excluded space, or below one.
    pub in_excluded_space: bool,
    /// Without an event for longer than the selection allows.
    pub is_inactive: bool,
    /// This process has seen the bot among the functional members; a person who then takes it out
    /// has their way.
    pub was_functional_member: bool,
    /// The bot joined just now and owes its notice.
    pub owes_notice: bool,
    /// The last step and how often it was carried out without changing anything.
    pub repeated: Option<(StepKind, u32)>,
}

/// The bot and its server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The bot.
    pub bot: UserId,
    /// The homeserver's name.
    pub server: ServerName,
}

/// What to do next in a room.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Have the homeserver give the bot power, and an invitation where one is needed, in the name
    /// of a local user.
    MakeAdmin {
        /// Whose name the homeserver will use, as far as can be foreseen.
        on_behalf_of: String,
    },
    /// Join.
    Join,
    /// Refuse an invitation to a room outside the selection.
    RefuseInvitation(Exclusion),
    /// Leave a room that the selection forbids.
    Leave(Exclusion),
    /// Write [`FUNCTIONAL_MEMBERS`] with this content.
    MarkFunctional(Value),
    /// Post the notice of the selection.
    PostNotice(String),
}

/// A step without its particulars.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StepKind {
    /// [`Step::MakeAdmin`].
    MakeAdmin,
    /// [`Step::Join`].
    Join,
    /// [`Step::RefuseInvitation`].
    RefuseInvitation,
    /// [`Step::Leave`].
    Leave,
    /// [`Step::MarkFunctional`].
    MarkFunctional,
    /// [`Step::PostNotice`].
    PostNotice,
}

impl StepKind {
    /// Every kind.
    pub const ALL: [Self; 6] = [
        Self::MakeAdmin,
        Self::Join,
        Self::RefuseInvitation,
        Self::Leave,
        Self::MarkFunctional,
        Self::PostNotice,
    ];

    /// Short `snake_case` name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MakeAdmin => "make_admin",
            Self::Join => "join",
            Self::RefuseInvitation => "refuse_invitation",
            Self::Leave => "leave",
            Self::MarkFunctional => "mark_functional",
            Self::PostNotice => "post_notice",
        }
    }
}

impl Step {
    /// Its kind.
    pub fn kind(&self) -> StepKind {
        match self {
            Self::MakeAdmin { .. } => StepKind::MakeAdmin,
            Self::Join => StepKind::Join,
            Self::RefuseInvitation(_) => StepKind::RefuseInvitation,
            Self::Leave(_) => StepKind::Leave,
            Self::MarkFunctional(_) => StepKind::MarkFunctional,
            Self::PostNotice(_) => StepKind::PostNotice,
        }
    }
}

/// What a room needs.
#[derive(Debug, Clone, PartialEq)]
pub enum Plan {
    /// Something is to be done.
    Step(Step),
    /// The bot is in and has the power it can have.
    Covered,
    /// Outside the selection.
    Excluded(Exclusion),
    /// Cannot be covered.
    Blocked(Obstacle),
}

/// Plans the next step.
pub fn plan(facts: &RoomFacts, selection: &RoomSelection, identity: &Identity) -> Plan {
    let Power::Known(power) = &facts.power else {
        return Plan::Blocked(Obstacle::PowerLevelsMissing);
    };
    let wanted = match exclusion::excluded(facts, selection, identity) {
        Some(reason) => outside(facts.membership, reason),
        None => match facts.membership {
            Membership::Banned => Plan::Blocked(Obstacle::Banned),
            Membership::Invited => Plan::Step(Step::Join),
            Membership::Outside if facts.is_public && facts.has_local_members => Plan::Step(Step::Join),
            Membership::Outside => come_in(facts, power),
            Membership::Joined => settle(facts, power, selection, identity),
        },
    };
    give_up(wanted, facts)
}

/// What becomes of a room outside the selection.
fn outside(membership: Membership, reason: Exclusion) -> Plan {
    match membership {
        Membership::Invited => Plan::Step(Step::RefuseInvitation(reason)),
        Membership::Joined if reason.forbids() => Plan::Step(Step::Leave(reason)),
        _ => Plan::Excluded(reason),
    }
}

/// The way into a room that needs an invitation.
fn come_in(facts: &RoomFacts, power: &PowerFacts) -> Plan {
    if !facts.has_local_members {
        return Plan::Blocked(Obstacle::NobodyLocal);
    }
    match &power.grant {
        Grant::By { user, .. } => Plan::Step(Step::MakeAdmin { on_behalf_of: user.clone() }),
        Grant::NoLocalAdmin => Plan::Blocked(Obstacle::NoLocalAdmin),
        Grant::NotEnoughPower => Plan::Blocked(Obstacle::NotEnoughPower),
    }
}

/// What is left to do in a room that the bot is in.
fn settle(facts: &RoomFacts, power: &PowerFacts, selection: &RoomSelection, identity: &Identity) -> Plan {
    if power.bot < FULL_POWER {
        match &power.grant {
            Grant::By { user, level } if *level > power.bot => {
                return Plan::Step(Step::MakeAdmin { on_behalf_of: user.clone() });
            }
            // Nobody of this server has more than the bot: that is all it can have.
            Grant::By { .. } => {}
            Grant::NoLocalAdmin if power.bot > power.default => {}
            Grant::NoLocalAdmin => return Plan::Blocked(Obstacle::NoLocalAdmin),
            Grant::NotEnoughPower => return Plan::Blocked(Obstacle::NotEnoughPower),
        }
    }
    if let Some(content) = functional_members(facts, power, identity) {
        return Plan::Step(Step::MarkFunctional(content));
    }
    match &selection.notice {
        Some(notice) if facts.owes_notice => Plan::Step(Step::PostNotice(notice.clone())),
        _ => Plan::Covered,
    }
}

/// An ordinary room admin's power.
pub const FULL_POWER: i64 = 100;

/// The content to write so that clients show a direct chat as one of its people, the bot merged
/// with whoever else is listed; `None` if there is nothing to write or no power to.
fn functional_members(facts: &RoomFacts, power: &PowerFacts, identity: &Identity) -> Option<Value> {
    let direct = facts.direct.as_ref()?;
    let mut members = listed_functional_members(direct.functional_members.as_ref());
    // Another bot that entered itself at the same moment has written over this one's entry.
    let lost = direct.marked_by.as_ref().is_some_and(|writer| members.contains(writer));
    if (facts.was_functional_member && !lost) || power.bot < power.needed_for_functional_members {
        return None;
    }
    if members.iter().any(|member| member == identity.bot.as_str()) {
        return None;
    }
    members.push(identity.bot.to_string());
    Some(json!({ "service_members": members }))
}

/// The users that a [`FUNCTIONAL_MEMBERS`] content lists; whatever else it holds is not kept.
pub fn listed_functional_members(content: Option<&Value>) -> Vec<String> {
    let listed = content.and_then(|content| content.get("service_members")?.as_array());
    let texts = listed.into_iter().flatten().filter_map(Value::as_str).map(ToOwned::to_owned);
    texts.collect()
}

/// A step that has no effect is not repeated for ever; those that merely finish a room are dropped.
fn give_up(wanted: Plan, facts: &RoomFacts) -> Plan {
    let Plan::Step(step) = &wanted else { return wanted };
    match facts.repeated {
        Some((kind, times)) if kind == step.kind() && times >= MOST_REPEATS => match kind {
            StepKind::MarkFunctional | StepKind::PostNotice => Plan::Covered,
            _ => Plan::Blocked(Obstacle::NoEffect),
        },
        _ => wanted,
    }
}
