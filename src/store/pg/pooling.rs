//! Finds out whether an endpoint pools transactions: then a session does not keep its settings and
//! prepared statements, and two statements may reach two servers.

use sqlx::{Connection as _, Executor as _, PgConnection, Row as _};

use super::{Endpoint, map};
use crate::store::StoreError;

const ROUNDS: usize = 3;

/// Fails with [`StoreError::TransactionPooling`] if two sessions share a server process, or one
/// session changes it. The second session holds a transaction meanwhile, so that a pooler that
/// otherwise always picks the same free server has to show itself.
pub(super) async fn refuse(endpoint: &Endpoint) -> Result<(), StoreError> {
    let mut first = endpoint.connect_bare().await?;
    let mut second = endpoint.connect_bare().await?;
    let outcome = probe(&mut first, &mut second).await;
    // Whether the sessions end politely changes nothing.
    let _ended = first.close().await;
    let _ended = second.close().await;
    match outcome {
        Ok(true) => Err(StoreError::TransactionPooling),
        Ok(false) => Ok(()),
        Err(error) => Err(map(error)),
    }
}

async fn probe(first: &mut PgConnection, second: &mut PgConnection) -> Result<bool, sqlx::Error> {
    for _ in 0..ROUNDS {
        let own = backend(first).await?;
        if backend(first).await? != own {
            return Ok(true);
        }
        second.execute("BEGIN").await?;
        if backend(second).await? == own {
            return Ok(true);
        }
        if backend(first).await? != own {
            return Ok(true);
        }
        second.execute("COMMIT").await?;
    }
    Ok(false)
}

/// The server process, asked for in the simple protocol: nothing is prepared.
async fn backend(connection: &mut PgConnection) -> Result<i32, sqlx::Error> {
    connection.fetch_one("SELECT pg_backend_pid()").await?.try_get_unchecked(0)
}
