//! The transaction of a batch.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::{Acquire as _, PgConnection, PgPool, types::Uuid};

use super::{
    continuity::{self, Head, lock_head},
    error::{Refusal, map, refusal},
    insert::{self, Row},
    media,
    prepare::Prepared,
    snapshot,
};
use crate::{
    domain::{record::event_source_id, trail::TrailPoint},
    store::{Batch, PendingEvent, StoreError, derive},
    trail::{chain, content, envelope::Envelope},
};

/// What the writer knows of itself.
#[derive(Debug, Clone)]
pub(super) struct Sequencer {
    pub(super) writer: Uuid,
    /// The last point of which this process knows that it is durable.
    pub(super) last: TrailPoint,
    pub(super) recorded_at: Timestamp,
}

/// What a transaction did, or would have done.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) head: Head,
    pub(super) seqs: Vec<Option<i64>>,
}

/// Why a transaction failed.
#[derive(Debug)]
pub(super) enum Failed {
    /// Because of a value of one of its records.
    Refused(sqlx::Error),
    /// For another reason.
    Store(StoreError),
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<sqlx::Error> for Failed {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(map(error))
    }
}

/// Writes the batch. With `only`, tries these records alone and takes everything back.
pub(super) async fn write(
    pool: &PgPool,
    sequencer: &Sequencer,
    batch: &Batch,
    prepared: &[Prepared],
    only: Option<std::ops::Range<usize>>,
) -> Result<Written, Failed> {
    let mut connection = pool.acquire().await?;
    let mut transaction = connection.begin().await?;
    let head = lock_head(&mut transaction).await?;
    if head.writer != sequencer.writer {
        return Err(StoreError::LostSequencer.into());
    }
    // Behind what this process knows to be durable: the server failed over and lost it.
    continuity::check(&mut transaction, &head, &sequencer.last).await?;
    let recorded_at = sequencer.recorded_at.max(head.recorded_at);
    let range = only.clone().unwrap_or(0..prepared.len());
    let (rows, after) = number(&mut transaction, &head, &prepared[range], recorded_at).await?;
    insert::rows(&mut transaction, &rows, recorded_at).await.map_err(|error| match refusal(&error) {
        Refusal::Value => Failed::Refused(error),
        // Only another writer can have added a source since this transaction read them.
        Refusal::Duplicate => StoreError::LostSequencer.into(),
        Refusal::Other => map(error).into(),
    })?;
    let mut fresh: HashMap<Uuid, i64> =
        rows.iter().map(|row| (row.prepared.source, row.envelope.seq)).collect();
    let seqs: Vec<Option<i64>> = prepared.iter().map(|prepared| fresh.remove(&prepared.source)).collect();
    if only.is_some() {
        transaction.rollback().await?;
        return Ok(Written { head: after, seqs });
    }
    let pending = unread(&mut transaction, batch, prepared, &seqs).await?;
    working_state(&mut transaction, batch, pending).await?;
    media::queue(&mut transaction, batch, &seqs, recorded_at).await?;
    media::attended(&mut transaction, batch).await?;
    advance(&mut transaction, &head, &after).await?;
    transaction.commit().await?;
    Ok(Written { head: after, seqs })
}

/// Gives numbers to the records whose source is new, and the head that follows from them.
async fn number<'a>(
    connection: &mut PgConnection,
    head: &Head,
    prepared: &'a [Prepared],
    recorded_at: Timestamp,
) -> Result<(Vec<Row<'a>>, Head), Failed> {
    let sources: Vec<Uuid> = prepared.iter().map(|prepared| prepared.source).collect();
    let mut known: HashSet<Uuid> = if sources.is_empty() {
        HashSet::new()
    } else {
        let found: Vec<Uuid> = sqlx::query_scalar("SELECT hash FROM source WHERE hash = ANY($1)")
            .bind(sources)
            .fetch_all(connection)
            .await?;
        found.into_iter().collect()
    };
    let mut after = head.clone();
    let mut rows = Vec::with_capacity(prepared.len());
    for prepared in prepared {
        if !known.insert(prepared.source) {
            continue;
        }
        let envelope = Envelope {
            seq: after.size + 1,
            epoch: head.epoch,
            recorded_at: recorded_at.as_microsecond(),
            category: prepared.category,
            commitment: prepared.commitment,
        };
        after.size = envelope.seq;
        after.hash = chain::extend(after.hash, &envelope);
        after.recorded_at = recorded_at;
        rows.push(Row { envelope, prepared });
    }
    Ok((rows, after))
}

/// Moves `head` by compare-and-set and keeps the new point.
async fn advance(connection: &mut PgConnection, before: &Head, after: &Head) -> Result<(), Failed> {
    if after.size == before.size {
        return Ok(());
    }
    let moved = sqlx::query(
        "UPDATE head SET size = $1, hash = $2, recorded_at = $3
         WHERE epoch = $4 AND size = $5 AND writer = $6",
    )
    .bind(after.size)
    .bind(after.hash.as_bytes().as_slice())
    .bind(after.recorded_at.to_sqlx())
    .bind(before.epoch)
    .bind(before.size)
    .bind(before.writer)
    .execute(&mut *connection)
    .await?;
    if moved.rows_affected() != 1 {
        return Err(StoreError::LostSequencer.into());
    }
    sqlx::query("INSERT INTO checkpoint (epoch, size, hash, recorded_at) VALUES ($1, $2, $3, $4)")
        .bind(after.epoch)
        .bind(after.size)
        .bind(after.hash.as_bytes().as_slice())
        .bind(after.recorded_at.to_sqlx())
        .execute(connection)
        .await?;
    Ok(())
}

/// The pending events, without those whose plaintext the trail has already: who lost the keys and reads
/// them again must not have them recorded a second time when the keys are back.
async fn unread<'a>(
    connection: &mut PgConnection,
    batch: &'a Batch,
    prepared: &[Prepared],
    seqs: &[Option<i64>],
) -> Result<Vec<&'a PendingEvent>, Failed> {
    let drafts = batch.drafts.iter().zip(prepared).zip(seqs);
    let known: HashMap<&str, Uuid> = drafts
        .filter(|(_, seq)| seq.is_none())
        .map(|((draft, prepared), _)| (draft.source_id.as_str(), prepared.source))
        .collect();
    let source = |event: &PendingEvent| known.get(event_source_id(event.event_id.as_str()).as_str()).copied();
    let asked: Vec<Uuid> = batch.pending.iter().filter_map(&source).collect();
    if asked.is_empty() {
        return Ok(batch.pending.iter().collect());
    }
    let contents: Vec<(Uuid, Vec<u8>)> = sqlx::query_as(
        "SELECT s.hash, c.content FROM source s
         JOIN envelope e ON e.seq = s.seq
         JOIN content c ON c.seq = s.seq AND c.category = e.category
         WHERE s.hash = ANY($1)",
    )
    .bind(asked)
    .fetch_all(connection)
    .await?;
    let has_plaintext =
        |bytes: &[u8]| content::decode(bytes).is_ok_and(|draft| draft.plaintext_raw.is_some());
    let read: HashSet<Uuid> =
        contents.iter().filter(|(_, bytes)| has_plaintext(bytes)).map(|(hash, _)| *hash).collect();
    let is_read = |event: &PendingEvent| source(event).is_some_and(|hash| read.contains(&hash));
    Ok(batch.pending.iter().filter(|event| !is_read(event)).collect())
}

/// Cursors, pending events and the inbox.
async fn working_state(
    connection: &mut PgConnection,
    batch: &Batch,
    mut pending: Vec<&PendingEvent>,
) -> Result<(), Failed> {
    // The last value counts where a name occurs twice; one statement cannot update a row twice.
    let cursors: HashMap<String, &[u8]> =
        batch.cursors.iter().map(|(name, value)| (derive::key(name), value.as_bytes())).collect();
    if !cursors.is_empty() {
        let (names, values): (Vec<_>, Vec<_>) = cursors.into_iter().unzip();
        sqlx::query(
            "INSERT INTO cursor (name, value) SELECT * FROM unnest($1::text[], $2::bytea[])
             ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        )
        .bind(names)
        .bind(values)
        .execute(&mut *connection)
        .await?;
    }
    if !pending.is_empty() {
        let mut seen = HashSet::new();
        pending.retain(|event| seen.insert(&event.event_id));
        sqlx::query(
            "INSERT INTO pending (event_id, room_id, raw, reason)
             SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[], $4::text[])
             ON CONFLICT (event_id) DO UPDATE SET reason = excluded.reason",
        )
        .bind(pending.iter().map(|event| event.event_id.as_str()).collect::<Vec<_>>())
        .bind(pending.iter().map(|event| event.room_id.as_str()).collect::<Vec<_>>())
        .bind(pending.iter().map(|event| event.raw.as_bytes()).collect::<Vec<_>>())
        .bind(pending.iter().map(|event| derive::key(&event.reason)).collect::<Vec<_>>())
        .execute(&mut *connection)
        .await?;
    }
    if !batch.resolved.is_empty() {
        sqlx::query("DELETE FROM pending WHERE event_id = ANY($1)")
            .bind(batch.resolved.iter().map(|id| id.as_str().to_owned()).collect::<Vec<_>>())
            .execute(&mut *connection)
            .await?;
    }
    if !batch.drained.is_empty() {
        sqlx::query("DELETE FROM inbox WHERE id = ANY($1)")
            .bind(&batch.drained)
            .execute(&mut *connection)
            .await?;
    }
    snapshot::write(connection, &batch.snapshots).await?;
    Ok(())
}
