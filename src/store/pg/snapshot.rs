//! What sources without events of their own showed last.

use std::collections::{BTreeMap, HashMap};

use sqlx::{PgConnection, PgPool};

use super::{continuity::inconsistent, map};
use crate::store::{Snapshot, StoreError, derive};

/// Writes and forgets, in the transaction of the records that say so.
pub(super) async fn write(connection: &mut PgConnection, snapshots: &[Snapshot]) -> Result<(), sqlx::Error> {
    // The last value counts where a key occurs twice; one statement cannot update a row twice.
    let last: HashMap<(&str, String), Option<&str>> = snapshots
        .iter()
        .map(|snapshot| ((snapshot.source, derive::key(&snapshot.key)), snapshot.value.as_deref()))
        .collect();
    let (kept, gone): (Vec<_>, Vec<_>) = last.into_iter().partition(|(_, value)| value.is_some());
    if !kept.is_empty() {
        sqlx::query(
            "INSERT INTO snapshot (source, key, value) SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[])
             ON CONFLICT (source, key) DO UPDATE SET value = excluded.value",
        )
        .bind(kept.iter().map(|((source, _), _)| *source).collect::<Vec<_>>())
        .bind(kept.iter().map(|((_, key), _)| key.as_str()).collect::<Vec<_>>())
        .bind(kept.iter().filter_map(|(_, value)| value.map(str::as_bytes)).collect::<Vec<_>>())
        .execute(&mut *connection)
        .await?;
    }
    if !gone.is_empty() {
        sqlx::query(
            "DELETE FROM snapshot USING unnest($1::text[], $2::text[]) AS gone (source, key)
             WHERE snapshot.source = gone.source AND snapshot.key = gone.key",
        )
        .bind(gone.iter().map(|((source, _), _)| *source).collect::<Vec<_>>())
        .bind(gone.iter().map(|((_, key), _)| key.as_str()).collect::<Vec<_>>())
        .execute(connection)
        .await?;
    }
    Ok(())
}

/// By the keys as they were asked for.
pub(super) async fn read(
    pool: &PgPool,
    source: &'static str,
    keys: &[String],
) -> Result<BTreeMap<String, String>, StoreError> {
    let asked: HashMap<String, &String> = keys.iter().map(|key| (derive::key(key), key)).collect();
    let rows: Vec<(String, Vec<u8>)> =
        sqlx::query_as("SELECT key, value FROM snapshot WHERE source = $1 AND key = ANY($2)")
            .bind(source)
            .bind(asked.keys().map(String::as_str).collect::<Vec<_>>())
            .fetch_all(pool)
            .await
            .map_err(map)?;
    let mut found = BTreeMap::new();
    for (key, value) in rows {
        let value = String::from_utf8(value)
            .map_err(|_| inconsistent("snapshot", format!("{source} {key} is no text")))?;
        if let Some(key) = asked.get(&key) {
            found.insert((*key).clone(), value);
        }
    }
    Ok(found)
}

/// A page of keys in order.
pub(super) async fn keys(
    pool: &PgPool,
    source: &'static str,
    after: Option<&str>,
    limit: u32,
) -> Result<Vec<String>, StoreError> {
    sqlx::query_scalar("SELECT key FROM snapshot WHERE source = $1 AND key > $2 ORDER BY key LIMIT $3")
        .bind(source)
        .bind(after.unwrap_or_default())
        .bind(i64::from(limit))
        .fetch_all(pool)
        .await
        .map_err(map)
}
