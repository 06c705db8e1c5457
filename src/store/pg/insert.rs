//! The rows of a batch, written with one statement per table and slice.

use jiff::Timestamp;
use jiff_sqlx::{Timestamp as SqlTimestamp, ToSqlx as _};
use sqlx::{PgConnection, types::Uuid};

use super::prepare::Prepared;
use crate::{store::derive, trail::envelope::Envelope};

/// A slice has at most this many rows and (unless it is a single row) this many bytes.
const MAX_ROWS: usize = 2_000;
const MAX_BYTES: usize = 16 << 20;
/// Between the relations of one record; keys contain no control characters but U+001F.
const BETWEEN: &str = "\u{1e}";

/// A record with its number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row<'a> {
    pub(super) envelope: Envelope,
    pub(super) prepared: &'a Prepared,
}

impl Row<'_> {
    fn category(&self) -> i16 {
        i16::from(self.prepared.category)
    }
}

/// Writes all rows, in the order `source`, `envelope`, `content`, `subject`.
pub(super) async fn rows(
    connection: &mut PgConnection,
    mut rows: &[Row<'_>],
    recorded_at: Timestamp,
) -> Result<(), sqlx::Error> {
    while !rows.is_empty() {
        let mut bytes = 0;
        let fitting = rows
            .iter()
            .take(MAX_ROWS)
            .take_while(|row| {
                bytes += row.prepared.bytes();
                bytes <= MAX_BYTES
            })
            .count()
            .max(1);
        let (slice, rest) = rows.split_at(fitting);
        source(connection, slice).await?;
        envelopes(connection, slice, recorded_at).await?;
        content(connection, slice).await?;
        subjects(connection, slice).await?;
        rows = rest;
    }
    Ok(())
}

fn column<'a, T>(rows: &[Row<'a>], value: impl Fn(&Row<'a>) -> T) -> Vec<T> {
    rows.iter().map(value).collect()
}

async fn source(connection: &mut PgConnection, rows: &[Row<'_>]) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO source (hash, seq) SELECT * FROM unnest($1::uuid[], $2::bigint[])")
        .bind(column::<Uuid>(rows, |row| row.prepared.source))
        .bind(column(rows, |row| row.envelope.seq))
        .execute(connection)
        .await?;
    Ok(())
}

async fn envelopes(
    connection: &mut PgConnection,
    rows: &[Row<'_>],
    recorded_at: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO envelope (seq, epoch, recorded_at, category, commitment)
         SELECT seq, epoch, $1, category, commitment
         FROM unnest($2::bigint[], $3::bigint[], $4::smallint[], $5::bytea[])
              AS t (seq, epoch, category, commitment)",
    )
    .bind(recorded_at.to_sqlx())
    .bind(column(rows, |row| row.envelope.seq))
    .bind(column(rows, |row| row.envelope.epoch))
    .bind(column(rows, Row::category))
    .bind(column(rows, |row| row.prepared.commitment.as_bytes().as_slice()))
    .execute(connection)
    .await?;
    Ok(())
}

async fn content(connection: &mut PgConnection, rows: &[Row<'_>]) -> Result<(), sqlx::Error> {
    let derived = |row: &Row<'_>| row.prepared.derived.is_some();
    sqlx::query(
        r"INSERT INTO content (seq, category, occurred_at, salt, content, derived, action, actor, room,
                               relations, words)
          SELECT seq, category, occurred_at, salt, content, derived, action, actor, room,
                 string_to_array(relations, E'\x1e'), to_tsvector('pg_catalog.simple', words)
          FROM unnest($1::bigint[], $2::smallint[], $3::timestamptz[], $4::bytea[], $5::bytea[],
                      $6::smallint[], $7::text[], $8::text[], $9::text[], $10::text[], $11::text[])
               AS t (seq, category, occurred_at, salt, content, derived, action, actor, room,
                     relations, words)",
    )
    .bind(column(rows, |row| row.envelope.seq))
    .bind(column(rows, Row::category))
    .bind(column::<SqlTimestamp>(rows, |row| row.prepared.occurred_at.to_sqlx()))
    .bind(column(rows, |row| row.prepared.salt.as_slice()))
    .bind(column(rows, |row| row.prepared.content.as_slice()))
    .bind(column(rows, |row| if derived(row) { derive::VERSION } else { 0 }))
    .bind(column(rows, |row| row.prepared.derived.as_ref().map(|derived| derived.action.as_str())))
    .bind(column(rows, |row| row.prepared.derived.as_ref().map(|derived| derived.actor.as_str())))
    .bind(column(rows, |row| row.prepared.derived.as_ref().and_then(|derived| derived.room.as_deref())))
    .bind(column(rows, |row| row.prepared.derived.as_ref().map(|derived| derived.relations.join(BETWEEN))))
    .bind(column(rows, |row| row.prepared.derived.as_ref().map(|derived| derived.words.as_str())))
    .execute(connection)
    .await?;
    Ok(())
}

async fn subjects(connection: &mut PgConnection, rows: &[Row<'_>]) -> Result<(), sqlx::Error> {
    let all: Vec<_> = rows
        .iter()
        .filter_map(|row| row.prepared.derived.as_ref().map(|derived| (row, derived)))
        .flat_map(|(row, derived)| derived.subjects.iter().map(move |subject| (row, subject)))
        .collect();
    if all.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO subject (seq, category, occurred_at, person, role)
         SELECT * FROM unnest($1::bigint[], $2::smallint[], $3::timestamptz[], $4::text[], $5::text[])",
    )
    .bind(all.iter().map(|(row, _)| row.envelope.seq).collect::<Vec<_>>())
    .bind(all.iter().map(|(row, _)| row.category()).collect::<Vec<_>>())
    .bind(all.iter().map(|(row, _)| row.prepared.occurred_at.to_sqlx()).collect::<Vec<SqlTimestamp>>())
    .bind(all.iter().map(|(_, (person, _))| person.as_str()).collect::<Vec<_>>())
    .bind(all.iter().map(|(_, (_, role))| role.as_str()).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}
