//! What the database's answers mean in conditions.

use crate::{
    domain::{trail::Continuity, worker::Check},
    store::StoreError,
};

/// The condition `DatabaseReady` of an error.
pub(super) fn check(error: &StoreError) -> Check {
    let (reason, advice) = match error {
        StoreError::Unavailable(_) => (
            "DatabaseUnreachable",
            "check host, port and the network policy; nothing is lost meanwhile, recording goes on where it stopped",
        ),
        StoreError::Login(_) => (
            "DatabaseLoginRefused",
            "the writer role's password is not the one in the Secret; restart the worker's pod to let its init container set it",
        ),
        StoreError::Full(_) => ("DatabaseCannotWrite", "free or add space, or end its read-only mode"),
        StoreError::TransactionPooling => (
            "TransactionPooling",
            "name another endpoint in the database Secret (CloudNativePG: the -rw service)",
        ),
        StoreError::SchemaTooNew { .. } => ("SchemaTooNew", "do not downgrade ems-bots"),
        StoreError::SchemaTooOld { .. } => {
            ("SchemaTooOld", "restart the worker's pod, its init container migrates")
        }
        StoreError::MayNotCreateRoles { .. } => {
            ("MayNotCreateRoles", "have an administrator run the statements")
        }
        StoreError::LostSequencer => ("LostSequencer", "another process writes this trail; this one ends"),
        StoreError::NotContinuing(_) => (
            "NotContinuing",
            "nothing is appended: restore the database that holds the promised records; how far they go is in status.trail and in the ConfigMap of the trail",
        ),
        StoreError::Inconsistent { .. } => ("DatabaseInconsistent", "see the worker's log, and report it"),
        StoreError::Query(_) => ("DatabaseFailing", "see the worker's log; the worker tries again by itself"),
    };
    Check::failed(reason, format!("{error}: {advice}"))
}

/// The condition that says whether the trail goes on from the promised point.
pub(super) fn not_continuing(continuity: &Continuity) -> Check {
    match continuity {
        Continuity::Continues => Check::ok("Continues", continuity.to_string()),
        Continuity::Behind { .. } => Check::failed("Behind", continuity.to_string()),
        Continuity::Different { .. } => Check::failed("Different", continuity.to_string()),
    }
}
