//! What the worker reads: single records, cursors, pending events.

use jiff::Timestamp;
use jiff_sqlx::{Timestamp as SqlTimestamp, ToSqlx as _};
use sqlx::{PgPool, types::Uuid};

use super::{continuity::inconsistent, map, prepare::SourceKey};
use crate::{
    domain::{
        EventId, RoomId,
        filter::StoredRecord,
        record::{Place, RecordDraft, Relation, Trust},
    },
    store::{PendingEvent, PendingPage, StoreError, derive},
    trail::content,
};

/// Columns of a record as the queries here and in the reader select them.
pub(super) type RecordRow = (i64, i64, SqlTimestamp, SqlTimestamp, Vec<u8>);

pub(super) fn record(row: RecordRow) -> Result<StoredRecord, StoreError> {
    let (seq, epoch, recorded_at, occurred_at, bytes) = row;
    let content = content::decode(&bytes)
        .map_err(|error| inconsistent("content", format!("record {seq} cannot be decoded: {error}")))?;
    Ok(StoredRecord {
        seq,
        epoch,
        recorded_at: recorded_at.to_jiff(),
        occurred_at: occurred_at.to_jiff(),
        content: Some(content),
    })
}

pub(super) async fn by_source(pool: &PgPool, hash: Uuid) -> Result<Option<StoredRecord>, StoreError> {
    let row: Option<RecordRow> = sqlx::query_as(
        "SELECT c.seq, e.epoch, e.recorded_at, c.occurred_at, c.content
         FROM source s
         JOIN envelope e ON e.seq = s.seq
         JOIN content c ON c.seq = s.seq AND c.category = e.category
         WHERE s.hash = $1",
    )
    .bind(hash)
    .fetch_optional(pool)
    .await
    .map_err(map)?;
    row.map(record).transpose()
}

pub(super) async fn latest_version(
    pool: &PgPool,
    key: &SourceKey,
    event_id: &EventId,
    before: Option<&Place>,
) -> Result<Option<StoredRecord>, StoreError> {
    let Some(original) = original(pool, key, event_id).await? else { return Ok(None) };
    let Some(author) = original.content.as_ref().map(|content| content.actor.clone()) else {
        return Ok(Some(original));
    };
    let relation = Relation::new("event", event_id.as_str(), "replaces");
    // By time of occurrence, as clients choose: backfill records old edits after newer ones.
    let rows: Vec<RecordRow> = sqlx::query_as(
        "SELECT c.seq, e.epoch, e.recorded_at, c.occurred_at, c.content
         FROM content c JOIN envelope e ON e.seq = c.seq
         WHERE c.relations @> ARRAY[$1] AND c.actor = $2 AND c.occurred_at <= $3
         ORDER BY c.occurred_at DESC, c.seq DESC LIMIT 10",
    )
    .bind(derive::relation_key(&relation))
    .bind(derive::key(author.id()))
    .bind(before.map_or(Timestamp::MAX, |before| before.at).to_sqlx())
    .fetch_all(pool)
    .await
    .map_err(map)?;
    let mut newest: Option<(Place, StoredRecord)> = None;
    for row in rows {
        let edit = record(row)?;
        let Some(content) = &edit.content else { continue };
        let event_id = content.event_id().unwrap_or_default().to_owned();
        let place = Place { at: edit.occurred_at, event_id };
        let counts = content.trust != Trust::Undecryptable
            && content.actor == author
            && content.relations.contains(&relation)
            // An absurd time is that of recording: the edit itself may stand before itself.
            && before.is_none_or(|before| place < *before && place.event_id != before.event_id);
        if counts && newest.as_ref().is_none_or(|(known, _)| *known < place) {
            newest = Some((place, edit));
        }
    }
    Ok(Some(newest.map_or(original, |(_, edit)| edit)))
}

pub(super) async fn replacement(
    pool: &PgPool,
    room: &RoomId,
    event_id: &EventId,
) -> Result<Option<StoredRecord>, StoreError> {
    let wanted = [
        Relation::new("room", room.as_str(), "in"),
        Relation::new("event", event_id.as_str(), "replaces_state"),
    ];
    let rows: Vec<RecordRow> = sqlx::query_as(
        "SELECT c.seq, e.epoch, e.recorded_at, c.occurred_at, c.content
         FROM content c JOIN envelope e ON e.seq = c.seq
         WHERE c.relations @> ARRAY[$1, $2]
         ORDER BY c.seq DESC LIMIT 10",
    )
    .bind(derive::relation_key(&wanted[0]))
    .bind(derive::relation_key(&wanted[1]))
    .fetch_all(pool)
    .await
    .map_err(map)?;
    for row in rows {
        let found = record(row)?;
        // Keys of very long names are shortened.
        let has = |relation| {
            found.content.as_ref().is_some_and(|content: &RecordDraft| content.relations.contains(relation))
        };
        if wanted.iter().all(has) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// The record of an event's plaintext, or else of the event as it was received.
async fn original(
    pool: &PgPool,
    key: &SourceKey,
    event_id: &EventId,
) -> Result<Option<StoredRecord>, StoreError> {
    for kind in ["plaintext", "event"] {
        if let Some(found) = by_source(pool, key.hash(&format!("matrix:{kind}:{event_id}"))).await? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

pub(super) async fn cursor(pool: &PgPool, name: &str) -> Result<Option<String>, StoreError> {
    let value: Option<Vec<u8>> = sqlx::query_scalar("SELECT value FROM cursor WHERE name = $1")
        .bind(derive::key(name))
        .fetch_optional(pool)
        .await
        .map_err(map)?;
    value
        .map(|bytes| String::from_utf8(bytes).map_err(|_| inconsistent("cursor", "value is not UTF-8")))
        .transpose()
}

pub(super) async fn pending(
    pool: &PgPool,
    room: &RoomId,
    after: Option<i64>,
    limit: u32,
) -> Result<PendingPage, StoreError> {
    let rows: Vec<(String, Vec<u8>, String, i64)> = sqlx::query_as(
        "SELECT event_id, raw, reason, added FROM pending
         WHERE room_id = $1 AND added > $2 ORDER BY added LIMIT $3",
    )
    .bind(room.as_str())
    .bind(after.unwrap_or(i64::MIN))
    .bind(i64::from(limit))
    .fetch_all(pool)
    .await
    .map_err(map)?;
    let is_full = u32::try_from(rows.len()).is_ok_and(|count| count >= limit);
    let next = rows.last().map(|(.., added)| *added).filter(|_| is_full);
    let events = rows.into_iter().map(|(event_id, raw, reason, _)| {
        Ok(PendingEvent {
            event_id: EventId::parse(event_id).map_err(|error| wrong(&error))?,
            room_id: room.clone(),
            raw: String::from_utf8(raw).map_err(|error| wrong(&error.utf8_error()))?,
            reason,
        })
    });
    Ok(PendingPage { events: events.collect::<Result<_, StoreError>>()?, next })
}

fn wrong(problem: &dyn std::fmt::Display) -> StoreError {
    inconsistent("pending", problem.to_string())
}

pub(super) async fn pending_rooms(pool: &PgPool) -> Result<Vec<RoomId>, StoreError> {
    let rooms: Vec<String> = sqlx::query_scalar("SELECT DISTINCT room_id FROM pending ORDER BY room_id")
        .fetch_all(pool)
        .await
        .map_err(map)?;
    rooms.into_iter().map(|room| RoomId::parse(room).map_err(|error| wrong(&error))).collect()
}

pub(super) async fn pending_totals(pool: &PgPool) -> Result<Vec<(String, u64)>, StoreError> {
    let rows: Vec<(String, i64)> =
        sqlx::query_as("SELECT reason, count(*) FROM pending GROUP BY reason ORDER BY reason")
            .fetch_all(pool)
            .await
            .map_err(map)?;
    Ok(rows.into_iter().map(|(reason, count)| (reason, u64::try_from(count).unwrap_or(0))).collect())
}
