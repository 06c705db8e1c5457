//! What callers need to know of any error: its kind, and whether trying again is of use.

use std::time::Duration;

/// When an operation that failed is worth trying again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Not until something that the operation read has changed (a custom resource, a Secret).
    Never,
    /// After a delay that grows with the number of failures.
    Backoff,
    /// After the delay that the other side asked for (for example `retry_after_ms`).
    After(Duration),
}

/// Errors that can be acted on by kind. Implementations are total matches, so that a new variant
/// does not compile until somebody has decided what it means.
pub trait Failure: std::error::Error {
    /// Closed set of short `snake_case` names, safe as a metric label.
    fn category(&self) -> &'static str;
    /// When to try again.
    fn retry(&self) -> Retry;
}
