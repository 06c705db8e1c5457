//! Why a room is left out or cannot be covered, as closed sets of codes.

/// Why the selection leaves a room out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Exclusion {
    /// Listed in `deny`.
    Denied,
    /// Not listed in `only`.
    NotSelected,
    /// Created on another server, and `localOnly` is set.
    RemoteRoom,
    /// A direct chat, and `directMessages` is off.
    DirectMessage,
    /// A direct chat of somebody in `excludeUsers`.
    ExcludedUser,
    /// In `excludeSpaces` or below one of them.
    ExcludedSpace,
    /// Its creator does not match `creatorPattern`.
    CreatorPattern,
    /// No activity within `minimumLastActive`.
    Inactive,
    /// The bot is being removed, and leaves its rooms.
    Farewell,
}

impl Exclusion {
    /// Every reason.
    pub const ALL: [Self; 9] = [
        Self::Denied,
        Self::NotSelected,
        Self::RemoteRoom,
        Self::DirectMessage,
        Self::ExcludedUser,
        Self::ExcludedSpace,
        Self::CreatorPattern,
        Self::Inactive,
        Self::Farewell,
    ];

    /// The reason code.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::NotSelected => "not_selected",
            Self::RemoteRoom => "remote_room",
            Self::DirectMessage => "direct_message",
            Self::ExcludedUser => "excluded_user",
            Self::ExcludedSpace => "excluded_space",
            Self::CreatorPattern => "creator_pattern",
            Self::Inactive => "inactive",
            Self::Farewell => "farewell",
        }
    }

    /// What it means, for people.
    pub fn explanation(self) -> &'static str {
        match self {
            Self::Denied => "the room is listed in spec.rooms.deny",
            Self::NotSelected => "spec.rooms.only lists other rooms",
            Self::RemoteRoom => "the room was created on another server, and spec.rooms.localOnly is true",
            Self::DirectMessage => "the room is a direct chat, and spec.rooms.directMessages is false",
            Self::ExcludedUser => "the room is a direct chat of somebody in spec.rooms.excludeUsers",
            Self::ExcludedSpace => "the room is one of spec.rooms.excludeSpaces, or below one",
            Self::CreatorPattern => "the room's creator does not match spec.rooms.creatorPattern",
            Self::Inactive => {
                "nothing happened in the room within spec.rooms.minimumLastActive, and the bot is not in it"
            }
            Self::Farewell => "the bot is being removed, and leaves its rooms as spec.deletionPolicy says",
        }
    }
}

/// Why a room within the selection cannot be covered (now).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Obstacle {
    /// It has no power levels (yet): it is being created, or its creation was never finished.
    PowerLevelsMissing,
    /// The bot is banned, and nobody can lift it.
    Banned,
    /// Nobody of this server is in it.
    NobodyLocal,
    /// Nobody of this server has power in it, neither those who are in it nor those who were.
    NoLocalAdmin,
    /// The most powerful person of this server may not give (more) power.
    NotEnoughPower,
    /// The homeserver did what was asked, again and again, and nothing changed.
    NoEffect,
    /// The homeserver refuses what was asked.
    Refused,
}

impl Obstacle {
    /// Every obstacle.
    pub const ALL: [Self; 7] = [
        Self::PowerLevelsMissing,
        Self::Banned,
        Self::NobodyLocal,
        Self::NoLocalAdmin,
        Self::NotEnoughPower,
        Self::NoEffect,
        Self::Refused,
    ];

    /// The reason code.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PowerLevelsMissing => "power_levels_missing",
            Self::Banned => "banned",
            Self::NobodyLocal => "nobody_local",
            Self::NoLocalAdmin => "no_local_admin",
            Self::NotEnoughPower => "not_enough_power",
            Self::NoEffect => "no_effect",
            Self::Refused => "refused",
        }
    }

    /// What it means and what to do, for people.
    pub fn explanation(self) -> &'static str {
        match self {
            Self::PowerLevelsMissing => {
                "the room has no power levels: it is being created, or its creation was never finished. It is not \
                 touched, since power given now would destroy it; whoever created it can make another one"
            }
            Self::Banned => {
                "the bot is banned, and nobody of this homeserver stands above it; an admin of another server can \
                 lift the ban"
            }
            Self::NobodyLocal => {
                "nobody of this homeserver is in the room, which the homeserver itself has left with them; nothing \
                 is said there that this homeserver hears of"
            }
            Self::NoLocalAdmin => {
                "nobody of this homeserver has power in the room, neither members nor those who left; an admin of \
                 another server can give the bot power"
            }
            Self::NotEnoughPower => {
                "the most powerful person of this homeserver may not give more power; an admin of another server can"
            }
            Self::NoEffect => {
                "the homeserver did what was asked, again and again, and nothing changed: look for something that \
                 undoes it (another bot, a module of the homeserver), or list the room in spec.rooms.deny"
            }
            Self::Refused => {
                "the homeserver refuses a step (the acts say which): ask its administrator for the cause, as a rule a \
                 module, or list the room in spec.rooms.deny"
            }
        }
    }

    /// Whether nobody of this server could change it: such a room is told of, but it is no fault.
    pub fn is_final(self) -> bool {
        match self {
            Self::PowerLevelsMissing
            | Self::Banned
            | Self::NobodyLocal
            | Self::NoLocalAdmin
            | Self::NotEnoughPower => true,
            Self::NoEffect | Self::Refused => false,
        }
    }

    /// The same of its code.
    pub fn is_final_code(code: &str) -> bool {
        Self::ALL.into_iter().any(|obstacle| obstacle.as_str() == code && obstacle.is_final())
    }
}

/// What a code means and what to do about it, for people.
pub fn explanation(code: &str) -> Option<&'static str> {
    let exclusion = Exclusion::ALL.into_iter().find(|reason| reason.as_str() == code);
    let obstacle = Obstacle::ALL.into_iter().find(|reason| reason.as_str() == code);
    exclusion.map(Exclusion::explanation).or_else(|| obstacle.map(Obstacle::explanation))
}

/// The code of a reason, from one that was written down; `None` if this version does not know it.
pub fn reason_code(text: &str) -> Option<&'static str> {
    let exclusions = Exclusion::ALL.into_iter().map(Exclusion::as_str);
    exclusions.chain(Obstacle::ALL.into_iter().map(Obstacle::as_str)).find(|code| *code == text)
}
