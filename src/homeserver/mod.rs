//! The port to a homeserver: accounts, tokens and rooms through its admin API. No device, no
//! encryption: that is the worker's session.

mod error;
mod inspect;
pub mod mock;
pub mod synapse;
mod types;

use async_trait::async_trait;
use secrecy::SecretString;

pub use self::{
    error::{HomeserverError, Result},
    inspect::{
        AccountFacts, History, Inspect, MediaUpload, ModuleFacts, QuarantineChange, Report, Rows,
        ServerFacts, SessionFacts,
    },
    types::{Account, LoginFlow, NewAccount, OWNERSHIP_PROVIDER, RoomList, RoomListing, Session, StateEvent},
};
use crate::domain::{DeviceId, Localpart, RoomId, ServerName, UserId};

/// Entry without a session: who one is becomes clear only here.
#[async_trait]
pub trait Entry: Send + Sync {
    /// The server's name, if it says so without a credential (`/_matrix/key/v2/server`).
    async fn server_name(&self) -> Result<Option<ServerName>>;
    /// Versions of the client-server API that it speaks; the cheapest question there is.
    async fn versions(&self) -> Result<Vec<String>>;
    /// The ways to log in that it offers.
    async fn login_flows(&self) -> Result<Vec<LoginFlow>>;
    /// Makes a server admin with the registration shared secret and returns its session.
    /// [`HomeserverError::UserInUse`] if the user exists.
    async fn register_admin(
        &self,
        secret: &SecretString,
        localpart: &Localpart,
        password: &SecretString,
    ) -> Result<Session>;
    /// Logs in with a password on the given device.
    async fn login(
        &self,
        localpart: &Localpart,
        password: &SecretString,
        device: &DeviceId,
    ) -> Result<Session>;
    /// Whose token it is.
    async fn whoami(&self, token: &SecretString) -> Result<UserId>;
}

/// What a server admin's token can do. Every call is idempotent and bounded in time.
#[async_trait]
pub trait Admin: Send + Sync {
    /// The admin user itself.
    fn user_id(&self) -> &UserId;
    /// Version of the homeserver; fails with [`HomeserverError::NotAdmin`] if the token is not an admin's.
    async fn server_version(&self) -> Result<String>;
    /// An account.
    async fn account(&self, user: &UserId) -> Result<Option<Account>>;
    /// Makes an account with its ownership mark; call only when [`Self::account`] says that there
    /// is none. [`HomeserverError::UserInUse`] if somebody else took the name in between.
    async fn create_account(&self, new: &NewAccount<'_>) -> Result<Account>;
    /// Sets the display name. Expensive on the homeserver (rewrites every membership): call it
    /// only when it differs.
    async fn set_display_name(&self, user: &UserId, name: &str) -> Result<()>;
    /// Uploads a PNG and makes it the avatar. As expensive as [`Self::set_display_name`].
    async fn set_avatar(&self, user: &UserId, png: &'static [u8]) -> Result<()>;
    /// Locks or unlocks an account.
    async fn set_locked(&self, user: &UserId, locked: bool) -> Result<()>;
    /// Deactivates an account: devices, account data and key backup are destroyed.
    async fn deactivate(&self, user: &UserId) -> Result<()>;
    /// Reactivates an account with a password.
    async fn reactivate(&self, user: &UserId, password: &SecretString) -> Result<()>;
    /// Removes every rate limit of an account, or puts them back.
    async fn set_unlimited(&self, user: &UserId, unlimited: bool) -> Result<()>;
    /// A token that acts as the user, without a device. Not rate limited. Refused for the admin itself.
    async fn puppet(&self, user: &UserId) -> Result<Session>;
    /// Ends a device of a user.
    async fn delete_device(&self, user: &UserId, device: &DeviceId) -> Result<()>;
    /// The user's devices.
    async fn devices(&self, user: &UserId) -> Result<Vec<DeviceId>>;
    /// Every room of the server.
    async fn rooms(&self) -> Result<RoomList>;
    /// The rooms with the fewest joined members, so many at most, and without those that have none: a new room has one. Cheaper
    /// than [`Self::rooms`].
    async fn smallest_rooms(&self, most: u64) -> Result<Vec<RoomListing>>;
    /// The number of rooms of the server that somebody is in: what is cheap to ask often.
    async fn inhabited_rooms(&self) -> Result<u64>;
    /// The rooms that a user is joined to.
    async fn joined_rooms(&self, user: &UserId) -> Result<Vec<RoomId>>;
    /// The current state of a room, of one type or all.
    async fn room_state(&self, room: &RoomId, event_type: Option<&str>) -> Result<Vec<StateEvent>>;
    /// Has a powerful local user invite `user` and give it that user's own level. Destroys a room
    /// that has no `m.room.power_levels` yet, and writes power before it fails for a banned user.
    async fn make_room_admin(&self, room: &RoomId, user: &UserId) -> Result<()>;
    /// When the newest event of a room was sent, in milliseconds since 1970.
    async fn last_activity(&self, room: &RoomId) -> Result<Option<i64>>;
    /// The newest events of these types, of one sender or all, newest first and a few hundred at most; also of a room that
    /// nobody of the server is in any more, of which [`Self::room_state`] shows nothing.
    async fn newest_events(
        &self,
        room: &RoomId,
        types: &[&str],
        sender: Option<&UserId>,
    ) -> Result<Vec<serde_json::Value>>;
    /// An event with its original content, also after its redaction.
    async fn fetch_event(&self, event_id: &str) -> Result<Option<serde_json::Value>>;
}

/// What any user's token can do in rooms.
#[async_trait]
pub trait User: Send + Sync {
    /// Joins a room, by one of the other servers `via` if this one is not in it.
    async fn join(&self, room: &RoomId, via: &[String]) -> Result<()>;
    /// Leaves a room (or refuses an invitation).
    async fn leave(&self, room: &RoomId) -> Result<()>;
    /// Invites a user.
    async fn invite(&self, room: &RoomId, user: &UserId) -> Result<()>;
    /// Lifts a user's ban.
    async fn unban(&self, room: &RoomId, user: &UserId) -> Result<()>;
    /// Writes a state event.
    async fn put_state(
        &self,
        room: &RoomId,
        event_type: &str,
        state_key: &str,
        content: &serde_json::Value,
    ) -> Result<()>;
    /// Sends a message event; the transaction id makes a repeat harmless.
    async fn send(
        &self,
        room: &RoomId,
        event_type: &str,
        transaction_id: &str,
        content: &serde_json::Value,
    ) -> Result<()>;
    /// Ends the session.
    async fn logout(&self) -> Result<()>;
}

/// Opens the three kinds of access to one homeserver.
pub trait Connect: Send + Sync {
    /// Access without a session.
    fn entry(&self) -> Box<dyn Entry>;
    /// Access with an admin's session.
    fn admin(&self, session: Session) -> Box<dyn Admin>;
    /// Reading access with an admin's session.
    fn inspect(&self, session: Session) -> Box<dyn Inspect>;
    /// Access with a user's session.
    fn user(&self, session: Session) -> Box<dyn User>;
}
