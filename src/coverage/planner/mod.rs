//! Facts about one room in, the next step out. No client, no clock, no memory of its own.
//!
//! Rules that hold for every plan: a room without `m.room.power_levels` is not touched (it is being
//! created, and power given now destroys it); for a banned bot nothing is done before the ban is
//! lifted; an invitation to a room outside the selection is refused; whoever was brought back leaves
//! again. A step that has been carried out several times without changing anything is not planned
//! again.

mod exclusion;
mod helpers;
mod power;
mod reasons;
mod step;
mod succession;
#[cfg(test)]
mod tests;

use serde_json::{Value, json};

pub use self::{
    exclusion::{Invitation, excluded, excluded_unlisted},
    helpers::{Absent, Helpers, Raise},
    power::{Grant, Power, PowerFacts, content, membership, read_power, user_level},
    reasons::{Exclusion, Obstacle, explanation, reason_code},
    step::{Step, StepKind},
    succession::{Candidate, Heir, Succession, candidate},
};
use crate::domain::{
    RoomId, ServerName, UserId,
    selection::{Leave, RoomSelection},
};

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
    /// Everybody but the bot who is in it, or was in it or in a chat that it replaces.
    pub people: Vec<String>,
    /// Content of [`FUNCTIONAL_MEMBERS`], if there is one.
    pub functional_members: Option<Value>,
    /// Who wrote that.
    pub marked_by: Option<String>,
}

/// Somebody whom the bot brought back for their power, and who leaves again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recalled {
    /// Who.
    pub user: String,
    /// Their membership.
    pub membership: Membership,
}

impl Recalled {
    /// In the room or invited.
    pub fn is_there(&self) -> bool {
        matches!(self.membership, Membership::Joined | Membership::Invited)
    }
}

/// Everything that decides what a room needs.
#[expect(clippy::struct_excessive_bools, reason = "facts that are independent of each other")]
#[derive(Debug, Clone, PartialEq)]
pub struct RoomFacts {
    /// The room.
    pub room_id: RoomId,
    /// Rooms that it replaces: what is wished of those holds for it, too.
    pub replaces: Vec<RoomId>,
    /// Its creator, if known.
    pub creator: Option<String>,
    /// Everybody may join.
    pub is_public: bool,
    /// Somebody of this server is in it.
    pub has_local_members: bool,
    /// Other servers whose users are in it, where nobody of this one is.
    pub via: Vec<String>,
    /// The bot's membership.
    pub membership: Membership,
    /// Who has which power.
    pub power: Power,
    /// Set if it is a direct chat.
    pub direct: Option<DirectChat>,
    /// Is an excluded space, or below one.
    pub in_excluded_space: bool,
    /// Is new, and may turn out to be outside the selection: it says that it is in an excluded space, or replaces another room,
    /// which does not say so (yet), or has only its creator, who may be inviting somebody to a direct chat.
    pub is_unclear: bool,
    /// Without an event for longer than the selection allows.
    pub is_inactive: bool,
    /// The bot was seen among the functional members; a person who then takes it out has their way.
    pub was_functional_member: bool,
    /// Set while somebody is in the room, or invited, because the bot needed their power.
    pub recalled: Option<Recalled>,
    /// The bot has not said what it is since it joined.
    pub owes_notice: bool,
    /// Who is an admin after the bot; only looked for where it is about to leave.
    pub succession: Succession,
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

impl Identity {
    /// Whether this is a user of this server.
    pub(in crate::coverage) fn is_local(&self, user: &str) -> bool {
        UserId::parse(user).is_ok_and(|user| user.is_local_to(&self.server))
    }
}

/// What a room needs.
#[derive(Debug, Clone, PartialEq)]
pub enum Plan {
    /// Something is to be done.
    Step(Step),
    /// The bot is in, with an admin's power.
    Covered,
    /// The bot is in, with less power than an admin's, and nobody can give it more.
    Limited(Obstacle),
    /// Outside the selection.
    Excluded(Exclusion),
    /// Cannot be covered.
    Blocked(Obstacle),
    /// Is being made: whether it is outside the selection will be known in a moment.
    Wait,
}

/// Plans the next step.
pub fn plan(facts: &RoomFacts, selection: &RoomSelection, identity: &Identity) -> Plan {
    let outside_of = excluded(facts, selection, identity);
    let power = match (&facts.power, outside_of) {
        (Power::Known(power), _) => power,
        (_, Some(reason)) => return Plan::Excluded(reason),
        (Power::NotShown, None) if facts.membership == Membership::Banned => {
            return Plan::Blocked(Obstacle::Banned);
        }
        // The homeserver is not in it any more. Joining by another server shows the state.
        (Power::NotShown, None) if facts.is_public && !facts.via.is_empty() => {
            return give_up(join(facts.via.clone()), facts);
        }
        _ if !facts.has_local_members && facts.membership != Membership::Joined => {
            return Plan::Blocked(Obstacle::NobodyLocal);
        }
        _ => return Plan::Blocked(Obstacle::PowerLevelsMissing),
    };
    let wanted = match outside_of {
        Some(reason) => outside(facts, reason, selection.leave),
        None if facts.is_unclear && facts.membership != Membership::Joined => Plan::Wait,
        None => match facts.membership {
            Membership::Banned => lift_ban(facts, power),
            Membership::Invited => join(Vec::new()),
            Membership::Outside => come_in(facts, power),
            Membership::Joined => settle(facts, power, selection, identity),
        },
    };
    give_up(release(wanted, facts), facts)
}

/// Whether the bot is to leave a room in which it is an admin as far as these facts tell, so that it matters who is one
/// after it.
pub fn leaves(facts: &RoomFacts, selection: &RoomSelection, identity: &Identity) -> bool {
    let is_admin = matches!(&facts.power, Power::Known(power) if power.bot >= FULL_POWER);
    selection.leave != Leave::Nothing
        && is_admin
        && facts.membership == Membership::Joined
        && excluded(facts, selection, identity).is_some()
}

fn join(via: Vec<String>) -> Plan {
    Plan::Step(Step::Join { via })
}

/// What becomes of a room outside the selection.
fn outside(facts: &RoomFacts, reason: Exclusion, leave: Leave) -> Plan {
    match (facts.membership, leave, &facts.succession) {
        (Membership::Invited, ..) => Plan::Step(Step::RefuseInvitation(reason)),
        (Membership::Joined, Leave::Nothing, _)
        | (Membership::Joined, Leave::Everything { patient: true }, Succession::Bot { goes_first: true })
        | (Membership::Banned | Membership::Outside, ..) => Plan::Excluded(reason),
        (Membership::Joined, _, Succession::Heir(Heir { user, content })) => {
            Plan::Step(Step::HandOver { user: user.clone(), content: content.clone(), reason })
        }
        (Membership::Joined, _, Succession::Settled | Succession::Bot { .. }) => {
            Plan::Step(Step::Leave(reason))
        }
    }
}

/// The way back for a bot that is banned.
fn lift_ban(facts: &RoomFacts, power: &PowerFacts) -> Plan {
    let helpers = &power.helpers;
    match &helpers.unban {
        Some(user) => Plan::Step(Step::Unban { on_behalf_of: user.clone() }),
        None => recall(facts, helpers).map_or(Plan::Blocked(Obstacle::Banned), Plan::Step),
    }
}

/// The way in.
fn come_in(facts: &RoomFacts, power: &PowerFacts) -> Plan {
    if !facts.has_local_members {
        return Plan::Blocked(Obstacle::NobodyLocal);
    }
    let has_guest = facts.recalled.as_ref().is_some_and(Recalled::is_there);
    match &power.grant {
        // Whoever was brought back gives what they can before the bot is in, so as to leave sooner.
        Grant::By { user, level } if !facts.is_public || (has_guest && *level > power.bot) => {
            return Plan::Step(Step::MakeAdmin { on_behalf_of: user.clone() });
        }
        _ if facts.is_public => return join(Vec::new()),
        _ => {}
    }
    match (more_power(facts, power), &power.helpers.invite) {
        (Some(step), _) => Plan::Step(step),
        (None, Some(user)) => Plan::Step(Step::Invite { on_behalf_of: user.clone() }),
        (None, None) => Plan::Blocked(missing(power)),
    }
}

/// How the bot gets more power than it has.
fn more_power(facts: &RoomFacts, power: &PowerFacts) -> Option<Step> {
    if let Grant::By { user, level } = &power.grant
        && *level > power.bot
    {
        return Some(Step::MakeAdmin { on_behalf_of: user.clone() });
    }
    let Helpers { raise, absent, .. } = &power.helpers;
    let raise = raise.as_ref();
    let could = |absent: &Absent| raise.is_none_or(|raise| absent.level > raise.level);
    let recalled = absent.as_ref().filter(|absent| could(absent)).and_then(|_| recall(facts, &power.helpers));
    recalled.or_else(|| {
        let Raise { user, content, .. } = raise?;
        Some(Step::Raise { on_behalf_of: user.clone(), content: content.clone() })
    })
}

/// How somebody who is needed comes back, if there is anybody.
fn recall(facts: &RoomFacts, helpers: &Helpers) -> Option<Step> {
    let absent = helpers.absent.as_ref().filter(|_| facts.has_local_members)?;
    let user = absent.user.clone();
    if facts.is_public || absent.is_invited {
        return Some(Step::Return { user });
    }
    match &helpers.invite {
        _ if helpers.bot_invites => Some(Step::Recall { user, on_behalf_of: None }),
        Some(host) => Some(Step::Recall { user, on_behalf_of: Some(host.clone()) }),
        None => None,
    }
}

fn missing(power: &PowerFacts) -> Obstacle {
    match power.grant {
        Grant::NoLocalAdmin => Obstacle::NoLocalAdmin,
        Grant::By { .. } | Grant::NotEnoughPower => Obstacle::NotEnoughPower,
    }
}

/// What is left to do in a room that the bot is in.
fn settle(facts: &RoomFacts, power: &PowerFacts, selection: &RoomSelection, identity: &Identity) -> Plan {
    let is_admin = power.bot >= FULL_POWER;
    if !is_admin && let Some(step) = more_power(facts, power) {
        return Plan::Step(step);
    }
    if let Some(content) = functional_members(facts, power, identity) {
        return Plan::Step(Step::MarkFunctional(content));
    }
    match &selection.notice {
        Some(notice) if facts.owes_notice => Plan::Step(Step::PostNotice(notice.clone())),
        _ if is_admin => Plan::Covered,
        _ => Plan::Limited(missing(power)),
    }
}

/// Whoever was brought back leaves as soon as nothing more is done by their power, so before the bot joins: a join may be
/// refused for as long as the homeserver likes.
fn release(wanted: Plan, facts: &RoomFacts) -> Plan {
    let needs = |user: &str| match &wanted {
        Plan::Step(Step::MakeAdmin { .. } | Step::Unban { .. }) => true,
        Plan::Step(step @ (Step::Recall { .. } | Step::Return { .. })) => step.person() == Some(user),
        _ => false,
    };
    match &facts.recalled {
        Some(recalled) if recalled.is_there() && !needs(&recalled.user) => {
            Plan::Step(Step::Release { user: recalled.user.clone() })
        }
        _ => wanted,
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
    let mut content = direct.functional_members.clone().filter(Value::is_object).unwrap_or_else(|| json!({}));
    content["service_members"] = json!(members);
    Some(content)
}

/// The users that a [`FUNCTIONAL_MEMBERS`] content lists.
pub fn listed_functional_members(content: Option<&Value>) -> Vec<String> {
    let listed = content.and_then(|content| content.get("service_members")?.as_array());
    let texts = listed.into_iter().flatten().filter_map(Value::as_str).map(ToOwned::to_owned);
    texts.collect()
}

/// A step that has no effect is not repeated for ever; those that merely finish a room are dropped.
fn give_up(wanted: Plan, facts: &RoomFacts) -> Plan {
    let Plan::Step(step) = &wanted else { return wanted };
    let tried = |kind: StepKind| match facts.repeated {
        Some((last, times)) if last == kind => times,
        _ => 0,
    };
    match step {
        // Better a room without an admin than one that the bot does not get out of.
        Step::HandOver { reason, .. }
            if tried(StepKind::HandOver) >= MOST_REPEATS || tried(StepKind::Leave) > 0 =>
        {
            give_up(Plan::Step(Step::Leave(*reason)), facts)
        }
        step if tried(step.kind()) < MOST_REPEATS => wanted,
        Step::MarkFunctional(_) | Step::PostNotice(_) => Plan::Covered,
        _ => Plan::Blocked(Obstacle::NoEffect),
    }
}
