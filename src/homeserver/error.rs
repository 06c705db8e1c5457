//! Why a homeserver did not do what it was asked, by kind.

use std::time::Duration;

use crate::domain::{Failure, Retry};

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

impl HomeserverError {
    /// Every category that [`Failure::category`] can name.
    pub const CATEGORIES: [&str; 13] = [
        "unreachable",
        "server_error",
        "rate_limited",
        "credential_refused",
        "not_admin",
        "shared_secret_refused",
        "password_login_disabled",
        "password_refused",
        "locked",
        "user_in_use",
        "not_offered",
        "not_found",
        "refused",
    ];
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
