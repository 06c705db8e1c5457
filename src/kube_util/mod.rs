//! What every controller needs of Kubernetes: server-side apply that writes only what differs,
//! conditions, status, leader election, backoff, Events, watches. Knows nothing of bots.

pub mod apply;
pub mod backoff;
pub mod brake;
pub mod conditions;
pub mod create;
pub mod error;
pub mod events;
pub mod lease;
pub mod orphans;
mod owned;
pub mod readiness;
mod subset;
pub mod watch;

pub use apply::{Fight, Kept, Outcome, apply, apply_status, keep};
pub use create::{Created, create_or_read};
pub use error::{Error, Result};
pub use subset::quantity;
