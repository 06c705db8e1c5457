//! Attachments: the queue of those that are to be fetched, and the contents that were.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use jiff_sqlx::{Timestamp as SqlTimestamp, ToSqlx as _};
use sqlx::{Connection as _, PgConnection, PgPool, Postgres, pool::PoolConnection};

use super::{continuity::inconsistent, map};
use crate::store::{AttachmentTotals, Batch, MediaHash, MediaPlace, QueuedAttachment, StoreError, Turn};

/// Queues the attachments of those records of the batch that were new. `seqs` are the numbers of its drafts.
/// An event that is twice in a batch has its attachments once.
pub(super) async fn queue(
    connection: &mut PgConnection,
    batch: &Batch,
    seqs: &[Option<i64>],
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    if batch.attachments.is_empty() {
        return Ok(());
    }
    let numbered = batch.drafts.iter().zip(seqs);
    let fresh: HashMap<&str, i64> =
        numbered.filter_map(|(draft, seq)| Some((draft.source_id.as_str(), (*seq)?))).collect();
    let mut seen = HashSet::new();
    let rows = batch.attachments.iter().filter(|new| seen.insert((&new.source_id, &new.wanted)));
    let rows = rows.filter_map(|new| Some((*fresh.get(new.source_id.as_str())?, new.wanted.as_bytes())));
    let (numbers, wanted): (Vec<i64>, Vec<&[u8]>) = rows.unzip();
    if numbers.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO attachment (seq, wanted, next_try, queued_at)
         SELECT seq, wanted, $3, $3 FROM unnest($1::bigint[], $2::bytea[]) AS t (seq, wanted)",
    )
    .bind(numbers)
    .bind(wanted)
    .bind(now.to_sqlx())
    .execute(connection)
    .await?;
    Ok(())
}

/// Takes those out of the queue of which the batch says what became of them.
pub(super) async fn attended(connection: &mut PgConnection, batch: &Batch) -> Result<(), sqlx::Error> {
    if !batch.attended.is_empty() {
        sqlx::query("DELETE FROM attachment WHERE id = ANY($1)")
            .bind(&batch.attended)
            .execute(connection)
            .await?;
    }
    Ok(())
}

pub(super) async fn due(
    pool: &PgPool,
    now: Timestamp,
    turn: Turn,
    limit: u32,
) -> Result<Vec<QueuedAttachment>, StoreError> {
    // Each has an index of its own.
    let due = match turn {
        Turn::First => {
            "SELECT id, wanted, tries, queued_at FROM attachment
             WHERE tries = 0 AND next_try <= $1 ORDER BY next_try, id LIMIT $2"
        }
        Turn::Again => {
            "SELECT id, wanted, tries, queued_at FROM attachment
             WHERE tries > 0 AND next_try <= $1 ORDER BY next_try, id LIMIT $2"
        }
    };
    let rows: Vec<(i64, Vec<u8>, i32, SqlTimestamp)> =
        sqlx::query_as(due).bind(now.to_sqlx()).bind(i64::from(limit)).fetch_all(pool).await.map_err(map)?;
    rows.into_iter()
        .map(|(id, wanted, tries, queued_at)| {
            Ok(QueuedAttachment {
                id,
                wanted: String::from_utf8(wanted)
                    .map_err(|_| inconsistent("attachment", "what is wanted is not UTF-8"))?,
                tries: u32::try_from(tries).unwrap_or(0),
                queued_at: queued_at.to_jiff(),
            })
        })
        .collect()
}

/// Those that are due now are left out: whoever asks is busy with them.
pub(super) async fn next(pool: &PgPool, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
    let next: Option<SqlTimestamp> = sqlx::query_scalar(
        "SELECT least((SELECT min(next_try) FROM attachment WHERE tries = 0 AND next_try > $1),
                      (SELECT min(next_try) FROM attachment WHERE tries > 0 AND next_try > $1))",
    )
    .bind(now.to_sqlx())
    .fetch_one(pool)
    .await
    .map_err(map)?;
    Ok(next.map(SqlTimestamp::to_jiff))
}

pub(super) async fn totals(pool: &PgPool, failing: u32) -> Result<AttachmentTotals, StoreError> {
    let (waiting, failing): (i64, i64) =
        sqlx::query_as("SELECT count(*), count(*) FILTER (WHERE tries >= $1) FROM attachment")
            .bind(i32::try_from(failing).unwrap_or(i32::MAX))
            .fetch_one(pool)
            .await
            .map_err(map)?;
    let count = |number: i64| u64::try_from(number).unwrap_or(0);
    Ok(AttachmentTotals { waiting: count(waiting), failing: count(failing) })
}

pub(super) async fn postpone(
    pool: &PgPool,
    id: i64,
    until: Timestamp,
    failed: bool,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE attachment SET tries = tries + $3, next_try = $2 WHERE id = $1")
        .bind(id)
        .bind(until.to_sqlx())
        .bind(i32::from(failed))
        .execute(pool)
        .await
        .map_err(map)?;
    Ok(())
}

pub(super) async fn is_kept(pool: &PgPool, sha256: &MediaHash) -> Result<bool, StoreError> {
    sqlx::query_scalar("SELECT EXISTS (SELECT FROM media WHERE sha256 = $1)")
        .bind(sha256.as_slice())
        .fetch_one(pool)
        .await
        .map_err(map)
}

/// A connection that carried a content. The driver would keep buffers of that size for as long as it lives,
/// and of each connection of the pool; they go however the statement ends.
struct Carrier(PoolConnection<Postgres>);

impl Drop for Carrier {
    fn drop(&mut self) {
        self.0.shrink_buffers();
    }
}

pub(super) async fn keep(
    pool: &PgPool,
    sha256: &MediaHash,
    size: u64,
    place: MediaPlace<'_>,
) -> Result<(), StoreError> {
    let (content, bucket) = match place {
        MediaPlace::Database(content) => (Some(content), None),
        MediaPlace::Bucket(bucket) => (None, Some(bucket)),
    };
    let mut carrier = Carrier(pool.acquire().await.map_err(map)?);
    sqlx::query(
        "INSERT INTO media (sha256, size, content, bucket) VALUES ($1, $2, $3, $4)
         ON CONFLICT (sha256) DO NOTHING",
    )
    .bind(sha256.as_slice())
    .bind(i64::try_from(size).unwrap_or(i64::MAX))
    .bind(content)
    .bind(bucket)
    .execute(&mut *carrier.0)
    .await
    .map_err(map)?;
    Ok(())
}
