//! The console process: for now the intake of what the Kubernetes API server reports, on its way into the
//! trails of the bots that it is about.
//!
//! Nothing here knows Kubernetes' client or Postgres: both come in through [`ports`].

pub mod caller;
pub mod certificate;
pub mod config;
pub mod deliver;
pub mod estate;
pub mod forward;
pub mod intake;
pub mod listen;
pub mod metrics;
mod places;
pub mod ports;
pub mod server;
pub mod tls;
