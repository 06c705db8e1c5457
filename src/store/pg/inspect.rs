//! What `doctor` wants to know of a database, without changing anything.

use sqlx::{Connection as _, PgConnection};

use super::{Endpoint, map, migrate, pooling};
use crate::store::StoreError;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// Version of the server.
    pub server_version: String,
    /// The role that is logged in.
    pub user: String,
    /// The connection is encrypted.
    pub is_encrypted: bool,
    /// The role may create roles.
    pub may_create_roles: bool,
    /// Version of the schema, if there is one.
    pub schema_version: Option<i64>,
    /// The version that this program makes.
    pub known_version: i64,
}

/// Connects and looks. Fails with [`StoreError::TransactionPooling`] on an endpoint that cannot be used.
pub async fn inspect(endpoint: &Endpoint) -> Result<Inspection, StoreError> {
    pooling::refuse(endpoint).await?;
    let mut connection = endpoint.connect().await?;
    let outcome = look(&mut connection).await;
    let _closed = connection.close().await;
    outcome
}

async fn look(connection: &mut PgConnection) -> Result<Inspection, StoreError> {
    let (server_version, user, is_encrypted, may_create_roles): (String, String, bool, bool) = sqlx::query_as(
        "SELECT current_setting('server_version'), current_user::text,
                COALESCE((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false),
                COALESCE((SELECT rolcreaterole OR rolsuper FROM pg_roles WHERE rolname = current_user), false)",
    )
    .fetch_one(&mut *connection)
    .await
    .map_err(map)?;
    let schema_version = migrate::version(connection).await?;
    let known_version = migrate::VERSION;
    Ok(Inspection { server_version, user, is_encrypted, may_create_roles, schema_version, known_version })
}
