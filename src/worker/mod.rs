//! The worker: one bot's Matrix device, and the only sequencer of its trail.
//!
//! Nothing here knows Kubernetes: instructions come in and reports go out through ports.

pub mod convert;
pub mod session;
