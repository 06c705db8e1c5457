//! What can stop a reconciliation, and what follows from it.

use std::time::Duration;

use crate::{
    domain::{Failure, Retry},
    homeserver::HomeserverError,
    kube_util,
};

/// Something that a person must know of, as a condition says it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    /// Which condition says so.
    pub aspect: Aspect,
    /// `CamelCase`, from a closed set.
    pub reason: &'static str,
    /// What happened, to which object, and what to do. No secret.
    pub message: String,
    /// When to look again.
    pub retry: Retry,
}

/// The condition that a problem belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aspect {
    /// `AccountReady`.
    Account,
    /// `WorkerReady`.
    Worker,
}

impl Problem {
    /// A problem of the account, which goes away with a change of something that is watched.
    pub fn account(reason: &'static str, message: impl Into<String>) -> Self {
        Self { aspect: Aspect::Account, reason, message: message.into(), retry: Retry::Never }
    }

    /// A problem of the worker's pod, which goes away with a change of something that is watched.
    pub fn worker(reason: &'static str, message: impl Into<String>) -> Self {
        Self { aspect: Aspect::Worker, reason, message: message.into(), retry: Retry::Never }
    }

    /// The same, with a look again after this time.
    #[must_use]
    pub fn again_after(mut self, delay: Duration) -> Self {
        self.retry = Retry::After(delay);
        self
    }
}

/// Why a reconciliation did not get to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The Kubernetes API refused or failed.
    #[error("{0}")]
    Kube(#[from] kube_util::Error),
    /// The homeserver refused or failed.
    #[error("{0}")]
    Homeserver(#[from] HomeserverError),
    /// A person has something to do.
    #[error(transparent)]
    Problem(#[from] Problem),
    /// No random numbers.
    #[error("the system has no random numbers")]
    Entropy,
    /// Something is under way and will be looked at again.
    #[error("waiting: {0}")]
    Waiting(String),
}

impl Error {
    /// Every category that [`Failure::category`] can name.
    pub fn categories() -> impl Iterator<Item = &'static str> {
        let own = ["problem", "entropy", "waiting"];
        own.into_iter().chain(HomeserverError::CATEGORIES).chain(kube_util::Error::CATEGORIES)
    }
}

impl Failure for Error {
    fn category(&self) -> &'static str {
        match self {
            Self::Kube(error) => error.category(),
            Self::Homeserver(error) => error.category(),
            Self::Problem(_) => "problem",
            Self::Entropy => "entropy",
            Self::Waiting(_) => "waiting",
        }
    }

    fn retry(&self) -> Retry {
        match self {
            // The rights of a namespace are given by somebody else; no watch tells when.
            Self::Kube(error) if error.is_forbidden() => Retry::After(Duration::from_secs(30)),
            Self::Kube(error) if error.is_invalid() => Retry::After(Duration::from_mins(5)),
            Self::Kube(_) | Self::Entropy | Self::Waiting(_) => Retry::Backoff,
            Self::Homeserver(error) => error.retry(),
            Self::Problem(problem) => problem.retry,
        }
    }
}
