//! The operator: makes the cluster and the homeserver what the custom resources say.
//!
//! Every reconciliation is `dereference -> validate -> secrets -> account -> build -> apply ->
//! status`. Reads happen in the first step; `validate` and `build` are pure; each later step makes
//! what is missing and may be interrupted anywhere. It holds no database connection, no Matrix
//! device and no message.

pub mod account;
pub mod apply;
pub mod build;
pub mod cleanup;
pub mod context;
pub mod controller;
pub mod dereference;
pub mod entropy;
pub mod error;
#[cfg(test)]
mod fixtures;
pub mod generated;
pub mod goodbye;
mod inbox;
pub mod labels;
pub mod leaving;
pub mod metrics;
pub mod names;
pub mod problem;
mod provision;
mod reconcile;
pub mod run;
pub mod secrets;
pub mod seen;
pub mod status;
pub mod trail;
mod unread;
pub mod validate;
pub mod worker_state;

pub use context::{ConnectFactory, Ctx, HomeserverTarget, Settings};
pub use error::{Error, Problem};
pub use reconcile::{error_policy, reconcile};
