//! The console's own database in Postgres.

use std::time::Duration;

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};
use sqlx::{Acquire as _, Connection as _, PgConnection, PgPool};

use super::{
    Endpoint, map,
    migrate::{self, Source},
    pooling,
};
use crate::{
    domain::{BotKind, BotName},
    store::{
        StoreError,
        platform::{Message, Page, Patience, PlatformStore, Waiting, WaitingTotals, Which},
    },
};

/// Every migration, oldest first. An applied one is never edited.
const MIGRATIONS: [Source; 1] =
    [(1, "platform", include_str!("../../../migrations/console/0001_platform.sql"))];

/// Several reports are taken at the same time.
const POOL: u32 = 8;
/// Bytes of the messages that are read at once, unless one alone is larger.
const PAGE_BYTES: i64 = 1 << 20;

/// [`PlatformStore`] in Postgres.
#[derive(Debug)]
pub struct PgPlatform {
    endpoint: Endpoint,
    pool: PgPool,
}

impl PgPlatform {
    /// Connects when first used.
    pub fn new(endpoint: Endpoint) -> Self {
        Self { pool: endpoint.pool(POOL), endpoint }
    }

    /// Brings schema and tables up to date. Safe to run in two processes at the same time.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        pooling::refuse(&self.endpoint).await?;
        let mut connection = self.endpoint.connect().await?;
        let outcome = async {
            migrate::lock(&mut connection, "console", self.endpoint.schema()).await?;
            migrate::apply(&mut connection, &MIGRATIONS).await
        }
        .await;
        // Closing the session gives its lock back, too.
        let _closed = connection.close().await;
        outcome
    }

    async fn update_trails(&self, sql: &'static str, bots: &[BotName]) -> Result<(), StoreError> {
        let (kinds, namespaces, bots) = names(bots);
        sqlx::query(sql)
            .bind(kinds)
            .bind(namespaces)
            .bind(bots)
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(map)
    }
}

/// What tells a message from all others.
fn mark(message: &Message) -> Vec<u8> {
    let mut hash = Sha256::new();
    let BotName { namespace, name, kind } = &message.bot;
    for part in [kind.slug(), namespace, name, &message.source_id] {
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    hash.finalize().to_vec()
}

/// Kinds, namespaces and names, as a statement takes them.
type Names<'a> = (Vec<&'a str>, Vec<&'a str>, Vec<&'a str>);

fn names<'a>(bots: impl IntoIterator<Item = &'a BotName>) -> Names<'a> {
    let mut names = Names::default();
    for bot in bots {
        names.0.push(bot.kind.slug());
        names.1.push(bot.namespace.as_str());
        names.2.push(bot.name.as_str());
    }
    names
}

fn bot(kind: &str, namespace: String, name: String) -> BotName {
    let kind = if kind == BotKind::Admin.slug() { BotKind::Admin } else { BotKind::Audit };
    BotName { namespace, name, kind }
}

async fn insert(connection: &mut PgConnection, messages: &[Message]) -> Result<(), StoreError> {
    if messages.is_empty() {
        return Ok(());
    }
    let (kinds, namespaces, bots) = names(messages.iter().map(|message| &message.bot));
    // In order: two replicas that insert the same ones wait for each other and not both at once.
    sqlx::query(
        "INSERT INTO trail (kind, namespace, name)
         SELECT DISTINCT kind, namespace, name
         FROM unnest($1::text[], $2::text[], $3::text[]) AS new (kind, namespace, name)
         ORDER BY kind, namespace, name
         ON CONFLICT (kind, namespace, name) DO NOTHING",
    )
    .bind(&kinds)
    .bind(&namespaces)
    .bind(&bots)
    .execute(&mut *connection)
    .await
    .map_err(map)?;
    // A trail that is removed in this moment has no number then, which is refused: nothing is left out unseen.
    sqlx::query(
        "INSERT INTO waiting (trail, mark, counter, body, is_proven)
         SELECT trail.id, new.mark, new.counter, new.body, new.is_proven
         FROM unnest($1::text[], $2::text[], $3::text[], $4::bytea[], $5::bigint[], $6::bytea[], $7::boolean[])
              WITH ORDINALITY AS new (kind, namespace, name, mark, counter, body, is_proven, number)
         LEFT JOIN trail ON (trail.kind, trail.namespace, trail.name) = (new.kind, new.namespace, new.name)
         ORDER BY new.number
         ON CONFLICT (mark) DO NOTHING",
    )
    .bind(&kinds)
    .bind(&namespaces)
    .bind(&bots)
    .bind(messages.iter().map(mark).collect::<Vec<_>>())
    .bind(messages.iter().map(|message| message.counter).collect::<Vec<_>>())
    .bind(messages.iter().map(|message| message.body.as_ref()).collect::<Vec<&[u8]>>())
    .bind(messages.iter().map(|message| message.is_proven).collect::<Vec<_>>())
    .execute(connection)
    .await
    .map(drop)
    .map_err(map)
}

/// Number, kind, namespace and name of a trail, and its tries.
type TrailRow = (i64, String, String, String, i32);

/// Postgres counts intervals in seconds.
fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

async fn page(connection: &mut PgConnection, trail: TrailRow, limit: u32) -> Result<Page, StoreError> {
    let (trail, kind, namespace, name, tries) = trail;
    let rows: Vec<(i64, i64, Vec<u8>)> = sqlx::query_as(
        "SELECT id, counter, body
         FROM (SELECT id, counter, body, octet_length(body) AS size,
                      sum(octet_length(body)) OVER (ORDER BY id) AS total
               FROM (SELECT id, counter, body FROM waiting WHERE trail = $1 ORDER BY id LIMIT $2) AS oldest) AS sized
         WHERE total <= $3 OR total = size
         ORDER BY id",
    )
    .bind(trail)
    .bind(i64::from(limit))
    .bind(PAGE_BYTES)
    .fetch_all(connection)
    .await
    .map_err(map)?;
    let messages = rows.into_iter().map(|(id, counter, body)| Waiting { id, counter, body }).collect();
    let tries = u32::try_from(tries).unwrap_or_default();
    Ok(Page { trail, bot: bot(&kind, namespace, name), tries, messages })
}

#[async_trait]
impl PlatformStore for PgPlatform {
    async fn keep(&self, messages: &[Message]) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin().await.map_err(map)?;
        insert(&mut transaction, messages).await?;
        transaction.commit().await.map_err(map)
    }

    async fn unproven_bytes(&self) -> Result<u64, StoreError> {
        let bytes: i64 = sqlx::query_scalar(
            "SELECT coalesce(sum(octet_length(body)), 0)::bigint FROM waiting WHERE NOT is_proven",
        )
        .fetch_one(&self.pool)
        .await
        .map_err(map)?;
        Ok(unsigned(bytes))
    }

    async fn take(&self, limit: u32, lease: Duration, which: Which) -> Result<Option<Page>, StoreError> {
        let mut connection = self.pool.acquire().await.map_err(map)?;
        let most_tries = match which {
            Which::All => i32::MAX,
            Which::Answering => 0,
        };
        // Whoever dies with messages in its hands leaves them to the next one when the lease is over.
        let trail: Option<TrailRow> = sqlx::query_as(
            "UPDATE trail SET leased = now() + make_interval(secs => $1)
             WHERE id = (SELECT next.id FROM trail AS next
                         WHERE next.due <= now() AND next.leased <= now() AND next.tries <= $2
                               AND EXISTS (SELECT FROM waiting WHERE waiting.trail = next.id)
                         ORDER BY next.due, next.id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED)
             RETURNING id, kind, namespace, name, tries",
        )
        .bind(seconds(lease))
        .bind(most_tries)
        .fetch_optional(&mut *connection)
        .await
        .map_err(map)?;
        let Some(trail) = trail else { return Ok(None) };
        page(&mut connection, trail, limit).await.map(Some)
    }

    async fn done(&self, ids: &[i64]) -> Result<(), StoreError> {
        let deleted =
            sqlx::query("DELETE FROM waiting WHERE id = ANY($1)").bind(ids).execute(&self.pool).await;
        deleted.map(drop).map_err(map)
    }

    async fn release(&self, trail: i64, after: Duration, tries: u32) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE trail SET leased = '-infinity', due = now() + make_interval(secs => $2), tries = $3
             WHERE id = $1",
        )
        .bind(trail)
        .bind(seconds(after))
        .bind(i32::try_from(tries).unwrap_or(i32::MAX))
        .execute(&self.pool)
        .await
        .map(drop)
        .map_err(map)
    }

    async fn hurry(&self, bots: &[BotName]) -> Result<(), StoreError> {
        // In order, as below: two replicas wait for each other and not both at once.
        let sql = "UPDATE trail SET due = now()
             WHERE id IN (SELECT id FROM trail
                          WHERE due > now()
                                AND (kind, namespace, name) IN
                                    (SELECT * FROM unnest($1::text[], $2::text[], $3::text[]))
                          ORDER BY id FOR NO KEY UPDATE)";
        self.update_trails(sql, bots).await
    }

    async fn totals(&self, bots_known: bool) -> Result<WaitingTotals, StoreError> {
        let (messages, left_over, oldest): (i64, i64, f64) = sqlx::query_as(
            "SELECT count(*), count(*) FILTER (WHERE NOT of.is_there),
                    coalesce(extract(epoch FROM now() - min(waiting.received_at) FILTER (WHERE of.is_there)), 0)::float8
             FROM waiting
             JOIN (SELECT id, NOT $1 OR seen > now() - interval '10 minutes' AS is_there FROM trail) AS of ON of.id = waiting.trail",
        )
        .bind(bots_known)
        .fetch_one(&self.pool)
        .await
        .map_err(map)?;
        let oldest = Duration::try_from_secs_f64(oldest).unwrap_or_default();
        Ok(WaitingTotals { messages: unsigned(messages), left_over: unsigned(left_over), oldest })
    }

    async fn seen(&self, bots: &[BotName]) -> Result<(), StoreError> {
        let sql = "UPDATE trail SET seen = now()
             WHERE id IN (SELECT id FROM trail
                          WHERE seen < now() - interval '1 minute'
                                AND (kind, namespace, name) IN
                                (SELECT * FROM unnest($1::text[], $2::text[], $3::text[]))
                          ORDER BY id FOR NO KEY UPDATE)";
        self.update_trails(sql, bots).await
    }

    async fn expire(&self, patience: Patience) -> Result<Vec<(BotName, u64)>, StoreError> {
        let rows: Vec<(String, String, String, i64)> = sqlx::query_as(
            "WITH old AS (
                 DELETE FROM waiting USING trail
                 WHERE trail.id = waiting.trail
                       AND greatest(trail.seen, waiting.received_at)
                           < now() - make_interval(secs => CASE WHEN waiting.is_proven THEN $1::float8 ELSE $2::float8 END)
                 RETURNING trail.kind, trail.namespace, trail.name)
             SELECT kind, namespace, name, count(*) FROM old GROUP BY kind, namespace, name",
        )
        .bind(seconds(patience.proven))
        .bind(seconds(patience.unproven))
        .fetch_all(&self.pool)
        .await
        .map_err(map)?;
        // A message that comes meanwhile either finds its trail gone and is not taken, or keeps it.
        sqlx::query(
            "DELETE FROM trail
             WHERE seen < now() - make_interval(secs => $1)
                   AND NOT EXISTS (SELECT FROM waiting WHERE waiting.trail = trail.id)",
        )
        .bind(seconds(patience.proven))
        .execute(&self.pool)
        .await
        .map_err(map)?;
        let count = |(kind, namespace, name, count): (String, String, String, i64)| {
            (bot(&kind, namespace, name), unsigned(count))
        };
        Ok(rows.into_iter().map(count).collect())
    }

    async fn known(&self, name: &str) -> Result<Option<String>, StoreError> {
        sqlx::query_scalar("SELECT value FROM known WHERE name = $1")
            .bind(name)
            .fetch_optional(&self.pool)
            .await
            .map_err(map)
    }

    async fn note(
        &self,
        name: &str,
        before: Option<&str>,
        value: &str,
        messages: &[Message],
    ) -> Result<bool, StoreError> {
        let mut connection = self.pool.acquire().await.map_err(map)?;
        let mut transaction = connection.begin().await.map_err(map)?;
        let statement = match before {
            None => "INSERT INTO known (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING",
            Some(_) => "UPDATE known SET value = $2, noted_at = now() WHERE name = $1 AND value = $3",
        };
        let mut query = sqlx::query(statement).bind(name).bind(value);
        if let Some(before) = before {
            query = query.bind(before);
        }
        if query.execute(&mut *transaction).await.map_err(map)?.rows_affected() == 0 {
            return Ok(false);
        }
        insert(&mut transaction, messages).await?;
        transaction.commit().await.map_err(map)?;
        Ok(true)
    }

    async fn forget_known(&self, but: &[String]) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM known WHERE noted_at < now() - interval '1 day' AND name <> ALL($1)")
            .bind(but)
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(map)
    }
}
