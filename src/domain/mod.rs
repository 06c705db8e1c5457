//! The words of the product as pure types: identifiers, audit records, room selection, time and
//! the two questions every error answers (what kind is it, is trying again of any use).
//!
//! Nothing here does I/O; every other layer may use it.

pub mod clock;
pub mod diff;
pub mod failure;
pub mod filter;
pub mod ids;
pub mod record;
pub mod revision;
pub mod room;
pub mod selection;
pub mod trail;
pub mod vocabulary;
pub mod worker;

pub use clock::{Clock, SystemClock};
pub use failure::{Failure, Retry};
pub use ids::{BotKind, BotName, DeviceId, EventId, IdError, Localpart, RoomId, ServerName, UserId};
