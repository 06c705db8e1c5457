//! Who is an admin of a room once the bot has left it.

use serde_json::Value;

use super::{
    FULL_POWER, Identity, content,
    helpers::Room,
    power::{creators, needed},
};
use crate::homeserver::StateEvent;

/// Who is an admin after the bot, as far as it is for the bot to see to that.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Succession {
    /// Somebody is one already, or the bot can make nobody one: there is nothing to do.
    #[default]
    Settled,
    /// Only another bot is one, and it may be about to leave, too: of two, the one whose name comes first goes first.
    Bot {
        /// That one goes before this one.
        goes_first: bool,
    },
    /// Nobody is one: this member gets the bot's power first.
    Heir(Heir),
}

/// Who becomes an admin in the bot's place.
#[derive(Debug, Clone, PartialEq)]
pub struct Heir {
    /// The member.
    pub user: String,
    /// The power levels to write.
    pub content: Value,
}

/// Who decides the succession, if their account is what it should be.
#[derive(Debug, Clone, PartialEq)]
pub enum Candidate {
    /// An admin besides the bot.
    Admin(String),
    /// The most powerful member of this server, of several the first by name.
    Heir(Heir),
}

/// The next candidate among the people of this server who are not passed over; nobody where an admin of another server
/// stays, or where the bot may not change power levels.
pub fn candidate(state: &[StateEvent], identity: &Identity, passed_over: &[String]) -> Option<Candidate> {
    let levels = content(state, "m.room.power_levels", "")?;
    let room = Room { state, creators: creators(state).collect(), levels, identity, unhelpful: passed_over };
    let bot = identity.bot.as_str();
    let may_write = room.power(bot) >= FULL_POWER.max(needed(levels, "m.room.power_levels"));
    let is_admin = |user: &str| user != bot && room.power(user) >= FULL_POWER;
    let is_beyond = |user: &str| is_admin(user) && !identity.is_local(user);
    if room.membership(bot) != Some("join") || !may_write || room.members().any(is_beyond) {
        return None;
    }
    if let Some(admin) = room.strongest(room.members(), is_admin) {
        return Some(Candidate::Admin(admin));
    }
    let user = room.strongest(room.members(), |user| room.power(user) < FULL_POWER)?;
    Some(Candidate::Heir(Heir { content: room.with_level(&user, FULL_POWER)?, user }))
}
