//! Power levels as room state has them, and what the homeserver's `make_room_admin` would make of
//! them.

use serde_json::Value;

use super::{
    FULL_POWER, FUNCTIONAL_MEMBERS, Identity,
    helpers::{Helpers, helpers},
};
use crate::homeserver::StateEvent;

/// Who has which power in a room.
#[derive(Debug, Clone, PartialEq)]
pub enum Power {
    /// The homeserver shows no state: it is in the room no more, or the room is only being made.
    NotShown,
    /// There is no `m.room.power_levels`.
    Missing,
    /// There is one.
    Known(Box<PowerFacts>),
}

/// The numbers that matter.
#[derive(Debug, Clone, PartialEq)]
pub struct PowerFacts {
    /// The bot's power.
    pub bot: i64,
    /// Everybody's power who is not named.
    pub default: i64,
    /// Needed to write [`FUNCTIONAL_MEMBERS`].
    pub needed_for_functional_members: i64,
    /// What `make_room_admin` can do here.
    pub grant: Grant,
    /// By whom else the bot can get in and up.
    pub helpers: Helpers,
}

/// What `make_room_admin` can do in a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grant {
    /// Give the bot this level in the name of this user.
    By {
        /// The most powerful member of this server (of several, any).
        user: String,
        /// The level that it can give.
        level: i64,
    },
    /// Nobody of this server who is in the room is named in its power levels or created it.
    NoLocalAdmin,
    /// The most powerful such member may not change power levels, or cannot be acted for.
    NotEnoughPower,
}

/// Reads the power out of a room's state, which must hold the power levels, the create event and
/// the memberships of everybody of this server who could give power. `unhelpful` are people in whose
/// name nothing could be done.
pub fn read_power(state: &[StateEvent], identity: &Identity, unhelpful: &[String]) -> Power {
    let Some(levels) = content(state, "m.room.power_levels", "") else {
        let is_shown = content(state, "m.room.create", "").is_some();
        return if is_shown { Power::Missing } else { Power::NotShown };
    };
    let default = level(levels, "users_default").unwrap_or(0);
    let bot = if creators(state).any(|creator| creator == identity.bot.as_str()) {
        i64::MAX
    } else {
        user_level(levels, identity.bot.as_str())
    };
    Power::Known(Box::new(PowerFacts {
        bot,
        default,
        needed_for_functional_members: needed(levels, FUNCTIONAL_MEMBERS),
        grant: grant(state, levels, identity, unhelpful),
        helpers: helpers(state, levels, identity, unhelpful),
    }))
}

fn grant(state: &[StateEvent], levels: &Value, identity: &Identity, unhelpful: &[String]) -> Grant {
    let could = |user: &str| {
        user != identity.bot.as_str() && identity.is_local(user) && membership(state, user) == Some("join")
    };
    // The homeserver takes whom it takes: if that is somebody in whose name nothing can be done, it
    // does not take the next one.
    let is_unhelpful = |user: &str| unhelpful.iter().any(|other| other == user);
    // From version 12 on creators stand above every number, and give an admin's power.
    if let Some(creator) = creators(state).find(|creator| could(creator)) {
        if is_unhelpful(creator) {
            return Grant::NotEnoughPower;
        }
        return Grant::By { user: creator.to_owned(), level: FULL_POWER };
    }
    let named = levels.get("users").and_then(Value::as_object).into_iter().flatten();
    let levels_of = named.filter_map(|(user, level)| Some((user, number(level)?)));
    match levels_of.filter(|(user, _)| could(user)).max_by_key(|(_, level)| *level) {
        None => Grant::NoLocalAdmin,
        Some((_, level)) if level < needed(levels, "m.room.power_levels") => Grant::NotEnoughPower,
        Some((user, _)) if is_unhelpful(user) => Grant::NotEnoughPower,
        Some((user, level)) => Grant::By { user: user.clone(), level },
    }
}

/// A user's level as the power levels have it: the one that they name, or everybody's.
pub fn user_level(levels: &Value, user: &str) -> i64 {
    named(levels, user).or_else(|| level(levels, "users_default")).unwrap_or(0)
}

/// The level that the power levels name for a user.
pub(super) fn named(levels: &Value, user: &str) -> Option<i64> {
    number(levels.get("users")?.get(user)?)
}

/// The users with a creator's power; none before version 12.
pub(super) fn creators(state: &[StateEvent]) -> impl Iterator<Item = &str> {
    let create = state.iter().find(|event| event.event_type == "m.room.create");
    let privileged = create.filter(|create| has_creator_power(&create.content));
    privileged.into_iter().flat_map(|create| {
        let more = create.content.get("additional_creators").and_then(Value::as_array);
        let more = more.into_iter().flatten().filter_map(Value::as_str);
        std::iter::once(create.sender.as_str()).chain(more)
    })
}

/// The numbered versions before 12 do not know creators' power; unstable ones are taken as older,
/// since then the power levels alone decide.
fn has_creator_power(create: &Value) -> bool {
    let version = create.get("room_version").and_then(Value::as_str).unwrap_or("1");
    version.parse::<u32>().is_ok_and(|version| version >= 12)
}

/// A user's membership of a room, as the room's state has it.
pub fn membership<'a>(state: &'a [StateEvent], user: &str) -> Option<&'a str> {
    content(state, "m.room.member", user)?.get("membership")?.as_str()
}

/// The content of a state event.
pub fn content<'a>(state: &'a [StateEvent], event_type: &str, key: &str) -> Option<&'a Value> {
    let is_it = |event: &&StateEvent| event.event_type == event_type && event.state_key == key;
    state.iter().find(is_it).map(|event| &event.content)
}

/// The level that a state event needs.
pub(super) fn needed(levels: &Value, event_type: &str) -> i64 {
    let own = levels.get("events").and_then(|events| number(events.get(event_type)?));
    own.or_else(|| level(levels, "state_default")).unwrap_or(50)
}

pub(super) fn level(levels: &Value, name: &str) -> Option<i64> {
    number(levels.get(name)?)
}

/// Room versions before 10 allow numbers written as text.
fn number(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.trim().parse().ok())
}
