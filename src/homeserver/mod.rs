//! The port to a homeserver: accounts, tokens and rooms through its admin API. No device, no
//! encryption: that is the worker's session.

use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;

use crate::domain::{DeviceId, Failure, Localpart, Retry, RoomId, ServerName, UserId};

/// Why a homeserver did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum HomeserverError {
    /// No connection, timeout, broken TLS, or an answer that is not JSON.
    #[error("homeserver {host} is not reachable: {problem}")]
    Unreachable {
        /// Host and port.
        host: String,
        /// What happened, without URL parameters.
        problem: String,
    },
    /// 5xx, with whatever body (a proxy's HTML included).
    #[error("homeserver answered {status} to {what}")]
    Server {
        /// HTTP status.
        status: u16,
        /// What was asked.
        what: &'static str,
    },
    /// 429.
    #[error("homeserver limits the rate of {what}")]
    RateLimited {
        /// What was asked.
        what: &'static str,
        /// `retry_after_ms`, if it said so.
        retry_after: Option<Duration>,
    },
    /// The token is unknown or expired.
    #[error("homeserver does not accept the credential for {what}")]
    CredentialRefused {
        /// What was asked.
        what: &'static str,
    },
    /// The credential works but is not a server admin's.
    #[error("credential is not that of a server admin")]
    NotAdmin,
    /// The registration shared secret is wrong.
    #[error("homeserver refuses the registration shared secret")]
    SharedSecretRefused,
    /// Password login is switched off.
    #[error("password login is switched off on the homeserver")]
    PasswordLoginDisabled,
    /// The password is wrong or the account is deactivated.
    #[error("homeserver refuses the password of {user}")]
    PasswordRefused {
        /// The account.
        user: String,
    },
    /// The account is locked.
    #[error("account {user} is locked")]
    Locked {
        /// The account.
        user: String,
    },
    /// The user id is taken.
    #[error("user id {user} is taken")]
    UserInUse {
        /// The account.
        user: String,
    },
    /// The endpoint does not exist there (blocked by a proxy, or the homeserver delegates to an authentication service).
    #[error("homeserver does not offer {what}; is the admin API reachable under spec.homeserver.url?")]
    NotOffered {
        /// What was asked.
        what: &'static str,
    },
    /// 404 `M_NOT_FOUND` of the object itself.
    #[error("{what} not found")]
    NotFound {
        /// The object.
        what: String,
    },
    /// Any other refusal with a Matrix error code.
    #[error("homeserver refused {what}: {errcode} ({status}): {message}")]
    Refused {
        /// What was asked.
        what: &'static str,
        /// HTTP status.
        status: u16,
        /// Matrix error code.
        errcode: String,
        /// Its text, shortened to 200 characters.
        message: String,
    },
}

impl Failure for HomeserverError {
    fn category(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "unreachable",
            Self::Server { .. } => "server_error",
            Self::RateLimited { .. } => "rate_limited",
            Self::CredentialRefused { .. } => "credential_refused",
            Self::NotAdmin => "not_admin",
            Self::SharedSecretRefused => "shared_secret_refused",
            Self::PasswordLoginDisabled => "password_login_disabled",
            Self::PasswordRefused { .. } => "password_refused",
            Self::Locked { .. } => "locked",
            Self::UserInUse { .. } => "user_in_use",
            Self::NotOffered { .. } => "not_offered",
            Self::NotFound { .. } => "not_found",
            Self::Refused { .. } => "refused",
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::Unreachable { .. } | Self::Server { .. } => Retry::Backoff,
            Self::RateLimited { retry_after, .. } => retry_after.map_or(Retry::Backoff, Retry::After),
            // A person can mend these on the homeserver, where no watch tells: look again, slowly.
            Self::CredentialRefused { .. }
            | Self::NotAdmin
            | Self::SharedSecretRefused
            | Self::PasswordLoginDisabled
            | Self::PasswordRefused { .. }
            | Self::Locked { .. }
            | Self::UserInUse { .. }
            | Self::NotOffered { .. }
            | Self::NotFound { .. }
            | Self::Refused { .. } => Retry::After(Duration::from_mins(1)),
        }
    }
}

/// Result of a call to a homeserver.
pub type Result<T> = std::result::Result<T, HomeserverError>;

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
    /// Display name.
    pub display_name: Option<String>,
    /// The identifier under the auth provider [`OWNERSHIP_PROVIDER`], by which an account proves
    /// that this product made it, and for which custom resource identity.
    pub ownership: Option<String>,
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
    /// Ownership mark.
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

/// One current state event of a room.
#[derive(Debug, Clone, PartialEq)]
pub struct StateEvent {
    /// Type.
    pub event_type: String,
    /// State key.
    pub state_key: String,
    /// Sender.
    pub sender: String,
    /// Content.
    pub content: serde_json::Value,
}

/// Entry without a session: who one is becomes clear only here.
#[async_trait]
pub trait Entry: Send + Sync {
    /// The server's name, if it says so without a credential (`/_matrix/key/v2/server`).
    async fn server_name(&self) -> Result<Option<ServerName>>;
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
    /// Makes an account; call only when [`Self::account`] says that there is none.
    async fn create_account(&self, new: &NewAccount<'_>) -> Result<Account>;
    /// Sets the display name. Expensive on the homeserver (rewrites every membership): call it
    /// only when it differs.
    async fn set_display_name(&self, user: &UserId, name: &str) -> Result<()>;
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
    async fn rooms(&self) -> Result<Vec<RoomListing>>;
    /// The rooms that a user is joined to.
    async fn joined_rooms(&self, user: &UserId) -> Result<Vec<RoomId>>;
    /// The current state of a room, of one type or all.
    async fn room_state(&self, room: &RoomId, event_type: Option<&str>) -> Result<Vec<StateEvent>>;
    /// Has a powerful local user invite `user` and give it that user's own level. Destroys a room
    /// that has no `m.room.power_levels` yet, and writes power before it fails for a banned user.
    async fn make_room_admin(&self, room: &RoomId, user: &UserId) -> Result<()>;
    /// An event with its original content, also after its redaction.
    async fn fetch_event(&self, event_id: &str) -> Result<Option<serde_json::Value>>;
}

/// What any user's token can do in rooms.
#[async_trait]
pub trait User: Send + Sync {
    /// Joins a room.
    async fn join(&self, room: &RoomId) -> Result<()>;
    /// Leaves a room (or refuses an invitation).
    async fn leave(&self, room: &RoomId) -> Result<()>;
    /// Invites a user.
    async fn invite(&self, room: &RoomId, user: &UserId) -> Result<()>;
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
    /// Access with a user's session.
    fn user(&self, session: Session) -> Box<dyn User>;
}
