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
}

impl Exclusion {
    /// Every reason.
    pub const ALL: [Self; 8] = [
        Self::Denied,
        Self::NotSelected,
        Self::RemoteRoom,
        Self::DirectMessage,
        Self::ExcludedUser,
        Self::ExcludedSpace,
        Self::CreatorPattern,
        Self::Inactive,
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
