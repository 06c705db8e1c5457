//! What is said to and heard from a homeserver.

use secrecy::SecretString;

use crate::domain::{DeviceId, Localpart, RoomId, UserId};

/// An account as the admin API shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The user.
    pub user_id: UserId,
    /// Is a server admin.
    pub admin: bool,
    /// Is deactivated.
    pub deactivated: bool,
    /// Is locked.
    pub locked: bool,
    /// `bot`, `support` or nothing.
    pub user_type: Option<String>,
    /// Application service that it belongs to, a bridge for example.
    pub appservice: Option<String>,
    /// Why little can be done with it, if so: `guest`, `suspended` or `shadow_banned`.
    pub restriction: Option<&'static str>,
    /// Display name.
    pub display_name: Option<String>,
    /// Its avatar, an `mxc://` address.
    pub avatar_url: Option<String>,
    /// The identifier under the auth provider [`OWNERSHIP_PROVIDER`], by which an account proves
    /// that this product made it, and for which custom resource identity.
    pub ownership: Option<String>,
}

impl Account {
    /// Whether a program uses it and no person.
    pub fn is_program(&self) -> bool {
        self.user_type.is_some() || self.appservice.is_some()
    }

    /// Whether a person can use it, without restriction.
    pub fn is_usable(&self) -> bool {
        !self.deactivated && !self.locked && !self.is_program() && self.restriction.is_none()
    }
}

/// Name of the auth provider whose `external_id` marks accounts that this product made.
pub const OWNERSHIP_PROVIDER: &str = "ems-bots";

/// How to make an account.
#[derive(Debug, Clone)]
pub struct NewAccount<'a> {
    /// Its localpart.
    pub localpart: &'a Localpart,
    /// Its password.
    pub password: &'a SecretString,
    /// Make it a server admin.
    pub admin: bool,
    /// Display name.
    pub display_name: &'a str,
    /// Ownership mark. Unique on the homeserver: two accounts cannot have the same one.
    pub ownership: &'a str,
}

/// A session at the homeserver.
#[derive(Debug, Clone)]
pub struct Session {
    /// Whose.
    pub user_id: UserId,
    /// Its device, if it has one.
    pub device_id: Option<DeviceId>,
    /// Its token.
    pub access_token: SecretString,
}

/// A room as the listing of the admin API shows it. Name and encryption of a new room can be
/// missing for some milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomListing {
    /// The room.
    pub room_id: RoomId,
    /// Its name, if it has one; anybody may have chosen it.
    pub name: Option<String>,
    /// Its creator if that is a local user, else `None`.
    pub creator: Option<String>,
    /// Joined users of this server.
    pub joined_local_members: u64,
    /// All joined users.
    pub joined_members: u64,
    /// Room version.
    pub version: Option<String>,
    /// `invite`, `public`, ...
    pub join_rules: Option<String>,
    /// `m.space` for spaces.
    pub room_type: Option<String>,
    /// Encryption algorithm.
    pub encryption: Option<String>,
    /// Number of current state events; changes when the state does (cheap sign of change).
    pub state_events: u64,
}

impl RoomListing {
    /// Nobody is in it: all have left, or it is being made.
    pub fn is_empty(&self) -> bool {
        self.joined_members == 0
    }
}

/// Every room of a server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RoomList {
    /// Those that can be read.
    pub rooms: Vec<RoomListing>,
    /// How many there are that somebody is in, with those that cannot be read.
    pub inhabited: u64,
}

/// One current state event of a room.
#[derive(Debug, Clone, PartialEq)]
pub struct StateEvent {
    /// Its identifier.
    pub event_id: String,
    /// The state event that it replaced, if the homeserver says so.
    pub replaces: Option<String>,
    /// Type.
    pub event_type: String,
    /// State key.
    pub state_key: String,
    /// Sender.
    pub sender: String,
    /// Content.
    pub content: serde_json::Value,
}

/// A way to log in that the homeserver offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginFlow {
    /// `m.login.password`, `m.login.token`, `m.login.sso`, ...
    pub kind: String,
    /// For `m.login.token`: an existing session can get a token for another one
    /// (`login_via_existing_session`).
    pub get_login_token: bool,
}
