//! Why there is no session, in words that tell a person what to do.

use std::time::Duration;

use matrix_sdk::{
    HttpError,
    encryption::{recovery::RecoveryError, secret_storage::SecretStorageError},
    ruma::api::error::{ErrorKind, FromHttpResponseError, RetryAfter},
};
use matrix_sdk_crypto::{MegolmError, OlmError};

use crate::domain::{Failure, Retry, worker::Check};

/// Everything that can keep the worker from having its device.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// No connection, a timeout, or an answer that cannot be read.
    #[error("homeserver is not reachable: {problem}")]
    Unreachable {
        /// What happened, without the URL.
        problem: String,
    },
    /// 5xx, or anything that is not an error of Matrix.
    #[error("homeserver answered {status}")]
    Server {
        /// HTTP status.
        status: u16,
    },
    /// 429.
    #[error("homeserver limits the rate of logins or requests")]
    RateLimited {
        /// How long it wants us to wait.
        retry_after: Option<Duration>,
    },
    /// The homeserver does not offer to log in with a password.
    #[error("password login is switched off on the homeserver")]
    PasswordLoginDisabled,
    /// The password is not the account's (any more).
    #[error("homeserver refuses the bot's password")]
    PasswordRefused,
    /// The account is locked.
    #[error("the bot's account is locked")]
    Locked,
    /// The account is deactivated.
    #[error("the bot's account is deactivated")]
    Deactivated,
    /// The session's token is not accepted any more: somebody removed the device.
    #[error("the bot's device was removed")]
    DeviceRemoved,
    /// The homeserver refused something with a Matrix error.
    #[error("homeserver refused: {errcode} ({status})")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Matrix error code.
        errcode: String,
    },
    /// The identity was made, but does not look as it should.
    #[error("the new identity is incomplete: {problem}")]
    Incomplete {
        /// What is missing.
        problem: &'static str,
    },
    /// The worker's volume cannot be used.
    #[error("volume of the worker: {problem}")]
    Volume {
        /// What is wrong with it.
        problem: String,
    },
    /// The homeserver's admin API.
    #[error(transparent)]
    Admin(#[from] crate::homeserver::HomeserverError),
    /// The trail, which is asked whether the identity was finished before.
    #[error(transparent)]
    Trail(#[from] crate::store::StoreError),
    /// Anything else inside the SDK.
    #[error("matrix client: {problem}")]
    Client {
        /// What it says.
        problem: String,
    },
}

impl Failure for SessionError {
    fn category(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "unreachable",
            Self::Server { .. } => "server_error",
            Self::RateLimited { .. } => "rate_limited",
            Self::PasswordLoginDisabled => "password_login_disabled",
            Self::PasswordRefused => "password_refused",
            Self::Locked => "locked",
            Self::Deactivated => "deactivated",
            Self::DeviceRemoved => "device_removed",
            Self::Refused { .. } => "refused",
            Self::Incomplete { .. } => "incomplete",
            Self::Volume { .. } => "volume",
            Self::Admin(error) => error.category(),
            Self::Trail(error) => error.category(),
            Self::Client { .. } => "client",
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::Unreachable { .. }
            | Self::Server { .. }
            | Self::Incomplete { .. }
            | Self::Client { .. }
            // Space is made, or a backup brought back, without a word to the worker.
            | Self::Volume { .. }
            // The operator unlocks the account of a bot that is resumed, at about the same time.
            | Self::Locked => Retry::Backoff,
            Self::RateLimited { retry_after } => retry_after.map_or(Retry::Backoff, Retry::After),
            // Mended by a person, on the homeserver, where nothing tells us. Not more often: every
            // attempt counts against the limit of logins.
            Self::PasswordLoginDisabled
            | Self::PasswordRefused
            | Self::Deactivated
            | Self::DeviceRemoved
            | Self::Refused { .. } => Retry::After(Duration::from_mins(5)),
            Self::Admin(error) => error.retry(),
            Self::Trail(error) => error.retry(),
        }
    }
}

impl SessionError {
    /// Whether the homeserver does not know the device, or not let it in, any more.
    pub(crate) fn ends_session(&self) -> bool {
        matches!(self, Self::DeviceRemoved | Self::Locked | Self::Deactivated)
    }

    /// The condition `EncryptionReady` that it makes.
    pub fn check(&self) -> Check {
        let (reason, advice) = match self {
            Self::Unreachable { .. } => (
                "HomeserverUnreachable",
                "check spec.homeserver.url, the network policy and spec.homeserver.caSecretRef",
            ),
            Self::Server { .. } => ("HomeserverFailing", "the worker tries again by itself"),
            Self::RateLimited { .. } => (
                "RateLimited",
                "the worker waits as long as the homeserver asks; raise rc_login on the homeserver if it takes too long",
            ),
            Self::PasswordLoginDisabled => (
                "PasswordLoginDisabled",
                "the worker needs a device of its own, which needs password login: enable password_config on the homeserver",
            ),
            Self::PasswordRefused => (
                "PasswordRefused",
                "somebody changed the account's password: set it back to the one in the account Secret with the homeserver's admin API (logout_devices: false)",
            ),
            Self::Locked => ("AccountLocked", "unlock the bot's account on the homeserver"),
            Self::Deactivated => (
                "AccountDeactivated",
                "reactivating the account does not bring its identity back; set the annotation ems.element.io/repair-encryption after reactivating it",
            ),
            Self::DeviceRemoved => (
                "DeviceRemoved",
                "a person signed in as the bot removed the worker's device, nothing that was received is lost; delete the worker's pod to let it log in as a new device with the same identity",
            ),
            Self::Refused { .. } => ("HomeserverRefused", "see the worker's log"),
            Self::Incomplete { .. } | Self::Client { .. } => {
                ("ClientFailing", "the worker tries again by itself")
            }
            Self::Volume { .. } => (
                "VolumeUnusable",
                "check the PersistentVolumeClaim of the worker: whether it is full, or what is on it is damaged. The worker tries again by itself and throws nothing away",
            ),
            Self::Admin(_) => ("AdminApiFailing", "see the condition AccountReady"),
            Self::Trail(_) => ("WaitingForDatabase", "see the condition DatabaseReady"),
        };
        Check::failed(reason, format!("{self}: {advice}"))
    }
}

/// What an error of the SDK means; no URL and no token in it.
pub fn classify(error: &matrix_sdk::Error) -> SessionError {
    match error {
        matrix_sdk::Error::Http(error) => classify_http(error),
        matrix_sdk::Error::Io(error) => SessionError::Volume { problem: error.kind().to_string() },
        matrix_sdk::Error::CryptoStoreError(_)
        | matrix_sdk::Error::StateStore(_)
        | matrix_sdk::Error::EventCacheStore(_)
        | matrix_sdk::Error::MediaStore(_) => SessionError::Volume { problem: shorten(error) },
        matrix_sdk::Error::OlmError(inner) if matches!(**inner, OlmError::Store(_)) => {
            SessionError::Volume { problem: shorten(error) }
        }
        matrix_sdk::Error::MegolmError(inner) if matches!(**inner, MegolmError::Store(_)) => {
            SessionError::Volume { problem: shorten(error) }
        }
        other => SessionError::Client { problem: shorten(other) },
    }
}

/// What an HTTP error of the SDK means.
pub fn classify_http(error: &HttpError) -> SessionError {
    if let Some(api) = error.as_client_api_error() {
        let status = api.status_code.as_u16();
        return match api.error_kind() {
            Some(ErrorKind::UserLocked) => SessionError::Locked,
            Some(ErrorKind::UserDeactivated) => SessionError::Deactivated,
            Some(ErrorKind::UnknownToken(_)) => SessionError::DeviceRemoved,
            Some(ErrorKind::LimitExceeded(data)) => SessionError::RateLimited {
                retry_after: data.retry_after.and_then(|after| match after {
                    RetryAfter::Delay(delay) => Some(delay),
                    RetryAfter::DateTime(_) => None,
                }),
            },
            _ if status == 429 => SessionError::RateLimited { retry_after: None },
            Some(kind) if status < 500 => {
                SessionError::Refused { status, errcode: kind.errcode().to_string() }
            }
            // Or no error of Matrix: something in front of the homeserver said it.
            _ => SessionError::Server { status },
        };
    }
    match error {
        HttpError::Reqwest(error) => SessionError::Unreachable { problem: describe(error) },
        HttpError::Api(error) => match error.as_ref() {
            FromHttpResponseError::Deserialization(_) => {
                SessionError::Unreachable { problem: "its answer cannot be read".to_owned() }
            }
            other => SessionError::Client { problem: shorten(other) },
        },
        other => SessionError::Client { problem: shorten(other) },
    }
}

/// What an error of the recovery means, where it is not about the state of the account.
pub(super) fn classify_recovery(error: &RecoveryError) -> SessionError {
    match error {
        RecoveryError::Sdk(error) | RecoveryError::SecretStorage(SecretStorageError::Sdk(error)) => {
            classify(error)
        }
        other => SessionError::Client { problem: shorten(other) },
    }
}

fn describe(error: &reqwest::Error) -> String {
    let kind = if error.is_timeout() {
        "timeout"
    } else if error.is_connect() {
        "no connection"
    } else if error.is_redirect() {
        "it redirects"
    } else {
        "broken connection"
    };
    kind.to_owned()
}

/// The text of an error, cut: what a homeserver wrote may be a page of HTML.
fn shorten(error: &dyn std::error::Error) -> String {
    error.to_string().chars().take(200).collect()
}
