//! From what the driver reports to what the caller can do about it.

use sqlx::Error;

use crate::store::StoreError;

/// What a failed statement means for the batch that it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// A value is to blame: without it the batch would pass.
    Value,
    /// A key that is there already.
    Duplicate,
    /// Anything else.
    Other,
}

fn sqlstate(error: &Error) -> Option<String> {
    match error {
        Error::Database(database) => database.code().map(std::borrow::Cow::into_owned),
        _ => None,
    }
}

impl StoreError {
    /// The database's own code for what failed (`SQLSTATE`), for the log. Its message is not fit for
    /// that: it may quote the content of a row.
    pub fn sqlstate(&self) -> Option<String> {
        std::error::Error::source(self)?.downcast_ref().and_then(sqlstate)
    }
}

/// Judges a failed insert.
pub(super) fn refusal(error: &Error) -> Refusal {
    match sqlstate(error).as_deref() {
        Some("23505") => Refusal::Duplicate,
        // Data exceptions, program limits, and constraints on values.
        Some(code) if code.starts_with("22") || code.starts_with("54") || code.starts_with("23") => {
            Refusal::Value
        }
        // "invalid memory alloc request size" and the like have no class of their own.
        Some("XX000") => Refusal::Value,
        _ => Refusal::Other,
    }
}

/// Maps a driver error.
pub(super) fn map(error: Error) -> StoreError {
    let Some(code) = sqlstate(&error) else {
        return match error {
            Error::Io(_)
            | Error::Tls(_)
            | Error::Protocol(_)
            | Error::PoolTimedOut
            | Error::PoolClosed
            | Error::WorkerCrashed
            | Error::BeginFailed => StoreError::Unavailable(Box::new(error)),
            other => StoreError::Query(Box::new(other)),
        };
    };
    let boxed = Box::new(error);
    match code.as_str() {
        // A prepared statement that is not where it was prepared, or is there already.
        "26000" | "42P05" => StoreError::TransactionPooling,
        // The database does not exist, or may not be connected to.
        "3D000" | "42501" if is_connect(&boxed) => StoreError::Login(boxed),
        code if code.starts_with("28") => StoreError::Login(boxed),
        // A read-only server, a full disk, an I/O error of the disk.
        "53100" | "25006" | "58030" => StoreError::Full(boxed),
        // Connections, memory, shutting down or starting up, timeouts, serialisation, deadlocks, locks:
        // all pass by themselves.
        code if ["08", "40", "53", "55", "57"].iter().any(|class| code.starts_with(class)) => {
            StoreError::Unavailable(boxed)
        }
        _ => StoreError::Query(boxed),
    }
}

fn is_connect(error: &Error) -> bool {
    let Error::Database(database) = error else { return false };
    let message = database.message();
    message.contains("does not exist") && message.contains("database") || message.contains("for database")
}
