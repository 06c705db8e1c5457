//! ems-bots: gives every hosted Matrix homeserver an Admin Bot and an Audit Bot.
//!
//! The layers, each of which may use only those named in `docs/architecture.md` (checked by
//! `tests/architecture.rs`):
//!
//! - [`domain`]: pure types;
//! - [`crd`]: the custom resources;
//! - `kube_util`: server-side apply, conditions, leader election; knows nothing of bots;
//! - `homeserver`: the port to a homeserver's admin API and its implementations;
//! - `coverage`: which room needs what next;
//! - `trail`: the log itself; `store`: its database;
//! - `operator`, `worker`, `console`: the long-running processes;
//! - `telemetry`, `lifecycle`, `cli`: what every process has.

// matrix-sdk's futures nest deeper than the compiler's default limit.
#![recursion_limit = "256"]

pub mod cli;
pub mod console;
pub mod coverage;
pub mod crd;
pub mod domain;
pub mod homeserver;
pub mod kube_util;
pub mod lifecycle;
pub mod operator;
pub mod store;
pub mod telemetry;
pub mod trail;
pub mod worker;
