//! A refused or failed request to the Kubernetes API, with the object it was about.

use kube::{Resource, ResourceExt as _};

/// Result of a request to the Kubernetes API.
pub type Result<T> = std::result::Result<T, Error>;

/// A request that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} {object}")]
pub struct Error {
    verb: &'static str,
    object: String,
    #[source]
    source: Box<kube::Error>,
}

impl Error {
    /// Wraps the error of the client with what was attempted.
    pub fn new(verb: &'static str, object: impl Into<String>, source: kube::Error) -> Self {
        Self { verb, object: object.into(), source: Box::new(source) }
    }

    /// What was attempted: `get`, `apply`, ...
    pub fn verb(&self) -> &'static str {
        self.verb
    }

    /// Kind, namespace and name of the object.
    pub fn object(&self) -> &str {
        &self.object
    }

    /// The HTTP status, if the API server answered.
    pub fn code(&self) -> Option<u16> {
        match self.source.as_ref() {
            kube::Error::Api(status) => Some(status.code),
            _ => None,
        }
    }

    /// The API server's own sentence, or that of the connection. A refusal of a Secret may quote
    /// what is in it, so that one is not repeated.
    pub fn detail(&self) -> String {
        match self.source.as_ref() {
            kube::Error::Api(_) if self.is_invalid() && self.object.starts_with("Secret ") => {
                "the API server refuses its content".to_owned()
            }
            kube::Error::Api(status) => status.message.clone(),
            other => other.to_string(),
        }
    }

    /// 403: the process has no right to do this (or an admission policy refused it).
    pub fn is_forbidden(&self) -> bool {
        self.code() == Some(403)
    }

    /// 403 because the namespace is being deleted: nothing new may be made in it.
    pub fn is_terminating(&self) -> bool {
        self.is_forbidden() && self.detail().contains("being terminated")
    }

    /// 404.
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// 409: somebody else was faster.
    pub fn is_conflict(&self) -> bool {
        self.code() == Some(409)
    }

    /// 400 or 422: the object itself is refused; sending it again is of no use.
    pub fn is_invalid(&self) -> bool {
        matches!(self.code(), Some(400 | 422))
    }

    /// Every category that [`Self::category`] can name.
    pub const CATEGORIES: [&str; 7] = [
        "kube_forbidden",
        "kube_not_found",
        "kube_conflict",
        "kube_invalid",
        "kube_rate_limited",
        "kube_server",
        "kube_unreachable",
    ];

    /// Closed set of names, safe as a metric label.
    pub fn category(&self) -> &'static str {
        match self.code() {
            Some(403) => "kube_forbidden",
            Some(404) => "kube_not_found",
            Some(409) => "kube_conflict",
            Some(400 | 422) => "kube_invalid",
            Some(429) => "kube_rate_limited",
            Some(_) => "kube_server",
            None => "kube_unreachable",
        }
    }
}

/// `Kind namespace/name` of an object, for messages.
pub fn describe<K: Resource<DynamicType = ()>>(object: &K) -> String {
    describe_name::<K>(object.namespace().as_deref(), &object.name_any())
}

/// `Kind namespace/name`, for messages.
pub fn describe_name<K: Resource<DynamicType = ()>>(namespace: Option<&str>, name: &str) -> String {
    match namespace {
        Some(namespace) => format!("{} {namespace}/{name}", K::kind(&())),
        None => format!("{} {name}", K::kind(&())),
    }
}
