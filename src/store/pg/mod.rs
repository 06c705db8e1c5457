//! The trail in Postgres; the only place that uses sqlx.
//!
//! - [`Endpoint`]: where the database is and how to log in;
//! - [`migrate::migrate`]: schema, partitions and roles, as the database's owner;
//! - [`PgStore`]: the writer; [`PgReader`]: the reader; [`inbox::PgInbox`]: the inbox role;
//! - [`platform::PgPlatform`]: the console's own database.

mod append;
mod continuity;
mod endpoint;
mod error;
pub mod inbox;
mod insert;
pub mod inspect;
mod lookup;
mod media;
pub mod migrate;
mod names;
pub mod platform;
mod pooling;
mod prepare;
mod reader;
mod rooms;
mod scram;
mod snapshot;
mod writer;

pub use endpoint::{Endpoint, EndpointError, EndpointParts};
pub use names::{Role, SchemaName, SchemaNameError, role_name};
pub use reader::PgReader;
pub use writer::{PgStore, WriterOptions};

use error::map;
