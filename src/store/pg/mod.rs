//! The trail in Postgres; the only place that uses sqlx.
//!
//! - [`Endpoint`]: where the database is and how to log in;
//! - [`migrate::migrate`]: schema, partitions and roles, as the database's owner;
//! - [`PgStore`]: the writer; [`PgReader`]: the reader; [`inbox::PgInbox`]: the inbox role.

mod append;
mod continuity;
mod endpoint;
mod error;
pub mod inbox;
mod insert;
pub mod inspect;
mod lookup;
pub mod migrate;
mod names;
mod pooling;
mod prepare;
mod reader;
mod scram;
mod writer;

pub use endpoint::{Endpoint, EndpointError, EndpointParts};
pub use names::{Role, SchemaName, SchemaNameError, role_name};
pub use reader::PgReader;
pub use writer::{PgStore, WriterOptions};

use error::map;
