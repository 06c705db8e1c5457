//! Where the bot stands in its rooms.

use jiff_sqlx::{Timestamp as SqlTimestamp, ToSqlx as _};
use sqlx::PgPool;
use uuid::Uuid;

use super::{
    continuity::{self, inconsistent},
    map,
};
use crate::{
    domain::{
        RoomId,
        room::{RestMark, RoomFilter, RoomNote, RoomState},
    },
    store::{StoreError, derive},
};

type Row = (String, Option<String>, String, Option<String>, SqlTimestamp, bool, bool, Option<i64>);

/// A page of notes in the order of the rooms' ids, from after one on.
pub(super) async fn read(
    pool: &PgPool,
    filter: &RoomFilter,
    after: Option<&RoomId>,
    limit: u32,
) -> Result<Vec<RoomNote>, StoreError> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT room_id, name, state, reason, since, is_greeted, was_functional_member, rests_as FROM room
         WHERE room_id > $1 AND ($2::text IS NULL OR room_id = $2) AND ($3::text IS NULL OR state = $3)
               AND ($4::text IS NULL OR reason = $4)
         ORDER BY room_id LIMIT $5",
    )
    .bind(after.map_or("", RoomId::as_str))
    .bind(filter.room.as_ref().map(RoomId::as_str))
    .bind(filter.state.map(RoomState::as_str))
    .bind(filter.reason.as_deref().map(derive::storable))
    .bind(i64::from(limit))
    .fetch_all(pool)
    .await
    .map_err(map)?;
    rows.into_iter().map(note).collect()
}

fn note(
    (id, name, state, reason, since, is_greeted, was_functional_member, rests_as): Row,
) -> Result<RoomNote, StoreError> {
    let room_id = RoomId::parse(&*id).map_err(|error| inconsistent("room", error.to_string()))?;
    let Some(state) = RoomState::parse(&state) else {
        return Err(inconsistent("room", format!("{room_id} is {state:?}")));
    };
    let (since, rests_as) = (since.to_jiff(), rests_as.map(RestMark));
    Ok(RoomNote { room_id, name, state, reason, since, is_greeted, was_functional_member, rests_as })
}

/// Notes some rooms and forgets others, both or none. Only the sequencer may.
pub(super) async fn write(
    pool: &PgPool,
    writer: Uuid,
    notes: &[RoomNote],
    gone: &[RoomId],
) -> Result<(), StoreError> {
    let mut transaction = pool.begin().await.map_err(map)?;
    if continuity::lock_head(&mut transaction).await?.writer != writer {
        return Err(StoreError::LostSequencer);
    }
    if !notes.is_empty() {
        sqlx::query(
            "INSERT INTO room (room_id, name, state, reason, since, is_greeted, was_functional_member, rests_as)
             SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::bool[],
                                  $7::bool[], $8::bigint[])
             ON CONFLICT (room_id) DO UPDATE
             SET name = excluded.name, state = excluded.state, reason = excluded.reason, since = excluded.since,
                 is_greeted = excluded.is_greeted, was_functional_member = excluded.was_functional_member,
                 rests_as = excluded.rests_as",
        )
        .bind(column(notes, |note| note.room_id.as_str().to_owned()))
        .bind(column(notes, |note| note.name.as_deref().map(derive::storable)))
        .bind(column(notes, |note| note.state.as_str()))
        .bind(column(notes, |note| note.reason.clone()))
        .bind(column(notes, |note| note.since.to_sqlx()))
        .bind(column(notes, |note| note.is_greeted))
        .bind(column(notes, |note| note.was_functional_member))
        .bind(column(notes, |note| note.rests_as.map(|mark| mark.0)))
        .execute(&mut *transaction)
        .await
        .map_err(map)?;
    }
    if !gone.is_empty() {
        sqlx::query("DELETE FROM room WHERE room_id = ANY($1)")
            .bind(gone.iter().map(RoomId::as_str).collect::<Vec<_>>())
            .execute(&mut *transaction)
            .await
            .map_err(map)?;
    }
    transaction.commit().await.map_err(map)
}

fn column<T>(notes: &[RoomNote], of: impl Fn(&RoomNote) -> T) -> Vec<T> {
    notes.iter().map(of).collect()
}
