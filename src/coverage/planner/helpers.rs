//! People of this server by whom a room can be recovered when `make_room_admin` cannot do it: the
//! homeserver lets its admin act in their name (`docs/coverage.md` has the chains).
//!
//! Whoever is chosen is the most powerful one, of several the first by name, so that the same room
//! gives the same plan.

use serde_json::{Value, json};

use super::{
    FULL_POWER, Identity,
    power::{creators, level, membership, named, needed},
};
use crate::homeserver::StateEvent;

/// Who can do what.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Helpers {
    /// Is in the room and may lift the bot's ban.
    pub unban: Option<String>,
    /// Is in the room and may change power levels without being named in them.
    pub raise: Option<Raise>,
    /// Is in the room and may invite.
    pub invite: Option<String>,
    /// The bot itself is in the room and may invite.
    pub bot_invites: bool,
    /// Is not in the room, and could give power if they were, or lift the bot's ban if there is one.
    pub absent: Option<Absent>,
}

/// Power given by a member who is not named in the power levels.
#[derive(Debug, Clone, PartialEq)]
pub struct Raise {
    /// The member.
    pub user: String,
    /// The level that the bot gets.
    pub level: i64,
    /// The power levels to write.
    pub content: Value,
}

/// Somebody who holds power and is not in the room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Absent {
    /// Who.
    pub user: String,
    /// The level that the bot could get.
    pub level: i64,
    /// Has an invitation.
    pub is_invited: bool,
}

/// Finds them; `unhelpful` are people who could not be used.
pub(super) fn helpers(
    state: &[StateEvent],
    levels: &Value,
    identity: &Identity,
    unhelpful: &[String],
) -> Helpers {
    let room = Room { state, creators: creators(state).collect(), levels, identity, unhelpful };
    Helpers {
        unban: room.strongest(room.members(), |user| room.may_unban(user)),
        raise: room.raise(),
        invite: room.strongest(room.members(), |user| room.power(user) >= room.level("invite", 0)),
        bot_invites: room.membership(identity.bot.as_str()) == Some("join")
            && room.power(identity.bot.as_str()) >= room.level("invite", 0),
        absent: room.absent(),
    }
}

/// A room's state, and who is looked for in it.
pub(super) struct Room<'a> {
    pub state: &'a [StateEvent],
    pub creators: Vec<&'a str>,
    pub levels: &'a Value,
    pub identity: &'a Identity,
    pub unhelpful: &'a [String],
}

impl<'a> Room<'a> {
    /// Everybody has a power, creators of version 12 the highest there is.
    pub(super) fn power(&self, user: &str) -> i64 {
        if self.creators.contains(&user) {
            return i64::MAX;
        }
        named(self.levels, user).unwrap_or_else(|| self.level("users_default", 0))
    }

    fn level(&self, name: &str, default: i64) -> i64 {
        level(self.levels, name).unwrap_or(default)
    }

    pub(super) fn membership(&self, user: &str) -> Option<&'a str> {
        membership(self.state, user)
    }

    fn is_usable(&self, user: &str) -> bool {
        user != self.identity.bot.as_str()
            && self.identity.is_local(user)
            && !self.unhelpful.iter().any(|other| other == user)
    }

    /// Members of all servers.
    pub(super) fn members(&self) -> impl Iterator<Item = &'a str> {
        let joined = |event: &&StateEvent| {
            event.event_type == "m.room.member" && event.content["membership"] == "join"
        };
        self.state.iter().filter(joined).map(|event| event.state_key.as_str())
    }

    pub(super) fn strongest(
        &self,
        users: impl Iterator<Item = &'a str>,
        can: impl Fn(&str) -> bool,
    ) -> Option<String> {
        let usable = users.filter(|user| self.is_usable(user) && can(user));
        let best = usable.max_by(|a, b| self.power(a).cmp(&self.power(b)).then_with(|| b.cmp(a)));
        best.map(ToOwned::to_owned)
    }

    /// Whoever lifts a ban needs the level for it, that for removing people, and more power than
    /// the banned one (room versions 1 to 12, authorisation rules for `m.room.member`).
    fn may_unban(&self, user: &str) -> bool {
        let power = self.power(user);
        power >= self.level("ban", 50)
            && power >= self.level("kick", 50)
            && power > self.power(self.identity.bot.as_str())
    }

    fn may_give_power(&self, user: &str) -> bool {
        let power = self.power(user);
        power >= needed(self.levels, "m.room.power_levels")
            && power.min(FULL_POWER) > self.power(self.identity.bot.as_str())
    }

    fn raise(&self) -> Option<Raise> {
        let user = self.strongest(self.members(), |user| self.may_give_power(user))?;
        let level = self.power(&user).min(FULL_POWER);
        Some(Raise { user, level, content: self.with_level(self.identity.bot.as_str(), level)? })
    }

    /// The power levels with another level of one user.
    pub(super) fn with_level(&self, user: &str, level: i64) -> Option<Value> {
        let mut content = self.levels.as_object()?.clone();
        let users = content.entry("users").or_insert_with(|| json!({}));
        users.as_object_mut()?.insert(user.to_owned(), json!(level));
        Some(Value::Object(content))
    }

    fn absent(&self) -> Option<Absent> {
        let listed = self.levels.get("users").and_then(Value::as_object);
        let listed = listed.into_iter().flatten().map(|(user, _)| user.as_str());
        let gone = listed
            .chain(self.creators.iter().copied())
            .filter(|user| !matches!(self.membership(user), Some("join" | "ban")));
        let is_banned = self.membership(self.identity.bot.as_str()) == Some("ban");
        let could = |user: &str| if is_banned { self.may_unban(user) } else { self.may_give_power(user) };
        let user = self.strongest(gone, could)?;
        Some(Absent {
            level: self.power(&user).min(FULL_POWER),
            is_invited: self.membership(&user) == Some("invite"),
            user,
        })
    }
}
