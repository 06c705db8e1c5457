//! How kinds of records are named, and those kinds that come into a trail from outside of its worker.
//!
//! The worker's own tables are in `src/worker/vocabulary.rs`, which names every record there is;
//! `docs/trail.md` has the same rows.

use super::record::Category;

/// Category and action of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Verb {
    /// One of the five.
    pub category: Category,
    /// Dotted name.
    pub action: &'static str,
}

impl Verb {
    /// A verb of these two.
    pub const fn new(category: Category, action: &'static str) -> Self {
        Self { category, action }
    }
}

/// What makes a record, and which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Event types, `*` at the end standing for any rest; or what happened, in words.
    pub of: &'static [&'static str],
    /// What it is recorded as.
    pub verb: Verb,
}

impl Row {
    /// A row of these two.
    pub const fn new(of: &'static [&'static str], verb: Verb) -> Self {
        Self { of, verb }
    }

    /// Whether this is one of its event types.
    pub fn is_of(&self, kind: &str) -> bool {
        self.of.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(start) => kind.starts_with(start),
            None => kind == *pattern,
        })
    }

    /// What makes the record, as the document names it.
    pub fn name(&self) -> String {
        self.of.join(", ")
    }
}

pub(crate) const fn activity(action: &'static str) -> Verb {
    Verb::new(Category::UserActivity, action)
}

pub(crate) const fn resource(action: &'static str) -> Verb {
    Verb::new(Category::ResourceChange, action)
}

pub(crate) const fn system(action: &'static str) -> Verb {
    Verb::new(Category::SystemChange, action)
}

pub(crate) const fn operation(action: &'static str) -> Verb {
    Verb::new(Category::AdminOperation, action)
}

pub(crate) const fn access(action: &'static str) -> Verb {
    Verb::new(Category::AccessEvent, action)
}

/// What the source of a record begins with that the console makes of an admission review.
pub const ADMISSION_SOURCE: &str = "kubernetes:admission:";
/// The same of audit events, and of those that were refused within an hour.
pub const AUDIT_SOURCES: [&str; 2] = ["kubernetes:audit:", "kubernetes:refused:"];

/// Somebody orders a bot.
pub const CREATION: Verb = resource("bot.creation.requested");
/// Somebody changes what a bot is asked to do.
pub const CHANGE: Verb = resource("bot.change.requested");
/// Somebody changes the plan of a bot.
pub const PLAN_CHANGE: Verb = operation("billing.plan_change.requested");
/// Somebody suspends a bot.
pub const SUSPENSION: Verb = operation("billing.suspension.requested");
/// Somebody lets a suspended bot go on.
pub const RESUMPTION: Verb = operation("billing.resumption.requested");
/// Somebody deletes a bot.
pub const REMOVAL: Verb = operation("billing.removal.requested");
/// A Secret is read.
pub const SECRET_READ: Verb = access("secret.read");
/// A Secret is written.
pub const SECRET_CHANGED: Verb = system("secret.changed");
/// Rights are granted or taken.
pub const RIGHTS_CHANGED: Verb = system("rights.changed");
/// A webhook or a policy of admission is written.
pub const ADMISSION_CHANGED: Verb = system("admission.changed");
/// A network policy is written.
pub const NETWORK_CHANGED: Verb = system("network_policy.changed");
/// A workload, or what belongs to it, is written.
pub const WORKLOAD_CHANGED: Verb = system("workload.changed");
/// Somebody goes into a pod.
pub const POD_ENTERED: Verb = access("pod.entered");
/// Somebody has a token issued.
pub const TOKEN_ISSUED: Verb = access("token.issued");
/// Somebody acts as one of our service accounts, or as somebody else.
pub const IMPERSONATED: Verb = access("user.impersonated");
/// What the API server reports cannot be read.
pub const EVENTS_UNREADABLE: Verb = system("audit_events.unreadable");
/// A process of ems-bots runs with another configuration.
pub const CONFIGURATION_CHANGED: Verb = system("process.configuration.changed");

/// What the intake makes of requests to the Kubernetes API.
pub const INTAKE: &[Row] = &[
    Row::new(&["a request to create a bot"], CREATION),
    Row::new(&["a request to change a bot"], CHANGE),
    Row::new(&["a request to change the plan of a bot"], PLAN_CHANGE),
    Row::new(&["a request to suspend a bot"], SUSPENSION),
    Row::new(&["a request to let a suspended bot go on"], RESUMPTION),
    Row::new(&["a request to delete a bot"], REMOVAL),
    Row::new(&["a Secret is read"], SECRET_READ),
    Row::new(&["a Secret is made, changed or deleted"], SECRET_CHANGED),
    Row::new(&["rights are granted, changed or taken"], RIGHTS_CHANGED),
    Row::new(&["a webhook or a policy of admission is changed"], ADMISSION_CHANGED),
    Row::new(&["a network policy is changed"], NETWORK_CHANGED),
    Row::new(&["a workload, its pod, volume or settings are changed"], WORKLOAD_CHANGED),
    Row::new(&["somebody goes into a pod"], POD_ENTERED),
    Row::new(&["a token of a service account is issued"], TOKEN_ISSUED),
    Row::new(
        &["somebody acts as a service account of ems-bots, or as another user to change a bot"],
        IMPERSONATED,
    ),
    Row::new(&["audit events cannot be read"], EVENTS_UNREADABLE),
    Row::new(&["operator or console run with another configuration"], CONFIGURATION_CHANGED),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_found_by_name_and_by_beginning() {
        let row = Row::new(&["m.one", "m.two.*"], system("x.y"));
        assert!(row.is_of("m.one") && row.is_of("m.two.") && row.is_of("m.two.three"));
        assert!(!row.is_of("m.one.more") && !row.is_of("m.two") && !row.is_of(""));
    }
}
