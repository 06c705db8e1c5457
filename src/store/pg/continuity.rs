//! Reads where a trail stands and judges whether it continues what was promised.

use jiff::Timestamp;
use jiff_sqlx::Timestamp as SqlTimestamp;
use sqlx::{PgConnection, types::Uuid};

use super::map;
use crate::{
    domain::trail::{Continuity, TrailPoint},
    store::StoreError,
    trail::{Digest, chain::Verifier, envelope::Envelope},
};

/// The `head` row.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) epoch: i64,
    pub(super) size: i64,
    pub(super) hash: Digest,
    pub(super) writer: Uuid,
    pub(super) recorded_at: Timestamp,
}

impl Head {
    pub(super) fn point(&self) -> TrailPoint {
        TrailPoint { epoch: self.epoch, size: self.size, root_hash: self.hash.to_string() }
    }
}

type HeadRow = (i64, i64, Vec<u8>, Uuid, SqlTimestamp);

fn head((epoch, size, hash, writer, recorded_at): HeadRow) -> Result<Head, StoreError> {
    let hash = Digest::from_slice(&hash).ok_or_else(|| inconsistent("head", "hash has not 32 bytes"))?;
    Ok(Head { epoch, size, hash, writer, recorded_at: recorded_at.to_jiff() })
}

pub(super) fn inconsistent(table: &'static str, problem: impl Into<String>) -> StoreError {
    StoreError::Inconsistent { table, problem: problem.into() }
}

/// Reads `head` and keeps everybody else from moving it until the transaction ends.
pub(super) async fn lock_head(connection: &mut PgConnection) -> Result<Head, StoreError> {
    sqlx::query_as("SELECT epoch, size, hash, writer, recorded_at FROM head FOR UPDATE")
        .fetch_optional(connection)
        .await
        .map_err(map)?
        .map_or_else(|| Err(inconsistent("head", "there is no row")), head)
}

/// Reads `head`.
pub(super) async fn read_head(connection: &mut PgConnection) -> Result<Head, StoreError> {
    let row: Option<(i64, i64, Vec<u8>)> =
        sqlx::query_as("SELECT epoch, size, hash FROM head").fetch_optional(connection).await.map_err(map)?;
    let (epoch, size, hash) = row.ok_or_else(|| inconsistent("head", "there is no row"))?;
    head((epoch, size, hash, Uuid::nil(), Timestamp::UNIX_EPOCH.into()))
}

/// Fails with [`StoreError::NotContinuing`] unless the trail contains the promised point.
pub(super) async fn check(
    connection: &mut PgConnection,
    head: &Head,
    promised: &TrailPoint,
) -> Result<(), StoreError> {
    if (promised.epoch, promised.size, &promised.root_hash) == (head.epoch, head.size, &head.hash.to_string())
    {
        return Ok(());
    }
    if promised.epoch > head.epoch || promised.size > head.size {
        return if was_abandoned(connection, promised).await? {
            Ok(())
        } else {
            Err(StoreError::NotContinuing(Continuity::Behind {
                found: head.point(),
                promised: promised.clone(),
            }))
        };
    }
    let kept: Option<Vec<u8>> =
        sqlx::query_scalar("SELECT hash FROM checkpoint WHERE epoch = $1 AND size = $2")
            .bind(promised.epoch)
            .bind(promised.size)
            .fetch_optional(&mut *connection)
            .await
            .map_err(map)?;
    let same = kept.is_some_and(|hash| hex::encode(hash) == promised.root_hash);
    if same || was_abandoned(connection, promised).await? {
        Ok(())
    } else {
        Err(StoreError::NotContinuing(Continuity::Different {
            found: head.point(),
            promised: promised.clone(),
        }))
    }
}

/// Whether a recorded decision gave the promised point up.
async fn was_abandoned(connection: &mut PgConnection, promised: &TrailPoint) -> Result<bool, StoreError> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM epochs
                        WHERE abandoned_epoch = $1 AND abandoned_size = $2
                          AND encode(abandoned_hash, 'hex') = $3)",
    )
    .bind(promised.epoch)
    .bind(promised.size)
    .bind(&promised.root_hash)
    .fetch_one(connection)
    .await
    .map_err(map)
}

type EnvelopeRow = (i64, i64, SqlTimestamp, i16, Vec<u8>);

/// Recomputes the hash over the last batch and compares it with `head`.
pub(super) async fn verify_last_batch(connection: &mut PgConnection, head: &Head) -> Result<(), StoreError> {
    let before: Option<(i64, Vec<u8>)> = sqlx::query_as(
        "SELECT size, hash FROM checkpoint WHERE size < $1 ORDER BY epoch DESC, size DESC LIMIT 1",
    )
    .bind(head.size)
    .fetch_optional(&mut *connection)
    .await
    .map_err(map)?;
    let Some((size, hash)) = before else { return Ok(()) };
    let hash =
        Digest::from_slice(&hash).ok_or_else(|| inconsistent("checkpoint", "hash has not 32 bytes"))?;
    let rows: Vec<EnvelopeRow> = sqlx::query_as(
        "SELECT seq, epoch, recorded_at, category, commitment FROM envelope WHERE seq > $1 ORDER BY seq",
    )
    .bind(size)
    .fetch_all(connection)
    .await
    .map_err(map)?;
    let mut verifier = Verifier::starting_at(size, hash);
    for row in rows {
        verifier.take(&envelope(row)?).map_err(|broken| inconsistent("envelope", broken.to_string()))?;
    }
    verifier.expect(head.size, head.hash).map_err(|broken| inconsistent("envelope", broken.to_string()))
}

fn envelope((seq, epoch, recorded_at, category, commitment): EnvelopeRow) -> Result<Envelope, StoreError> {
    let broken = || inconsistent("envelope", format!("record {seq} has an impossible value"));
    Ok(Envelope {
        seq,
        epoch,
        recorded_at: recorded_at.to_jiff().as_microsecond(),
        category: u8::try_from(category).map_err(|_| broken())?,
        commitment: Digest::from_slice(&commitment).ok_or_else(broken)?,
    })
}
