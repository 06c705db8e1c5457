//! The worker: one bot's Matrix device, and the only sequencer of its trail.
//!
//! Nothing here knows Kubernetes: instructions come in and reports go out through [`ports`].

pub mod acts;
mod alive;
mod backoff;
pub mod board;
mod book;
mod capture;
pub mod convert;
pub mod cover;
mod guard;
mod inbox;
pub mod media;
pub mod metrics;
mod parts;
mod plan;
pub mod ports;
pub mod recorder;
mod records;
mod report;
pub mod session;
mod sources;
pub mod supervisor;
mod survey;
mod suspension;
mod synapse_module;
pub mod vocabulary;
