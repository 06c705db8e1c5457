//! The reader of a trail.

use async_trait::async_trait;
use jiff_sqlx::ToSqlx as _;
use sqlx::{PgPool, Postgres, QueryBuilder};

use super::{
    Endpoint, continuity,
    lookup::{RecordRow, record},
    map, migrate, rooms,
};
use crate::{
    domain::{
        RoomId,
        filter::{Page, PageRequest, SearchFilter, StoredRecord},
        room::{RoomFilter, RoomNote},
        trail::TrailPoint,
    },
    store::{AuditReader, StoreError, derive},
    trail::envelope::category_number,
};

const POOL: u32 = 2;

/// [`AuditReader`] in Postgres.
#[derive(Debug)]
pub struct PgReader {
    pool: PgPool,
}

impl PgReader {
    /// Connects, and checks that the schema is one that this program knows.
    pub async fn connect(endpoint: &Endpoint) -> Result<Self, StoreError> {
        let pool = endpoint.pool(POOL);
        let mut connection = pool.acquire().await.map_err(map)?;
        migrate::require_current(&mut connection).await?;
        drop(connection);
        Ok(Self { pool })
    }
}

/// The query of a search. Every value is bound; the text of the SQL depends on which conditions
/// there are only.
fn query(filter: &SearchFilter, page: PageRequest) -> QueryBuilder<Postgres> {
    let mut query = QueryBuilder::new(
        "SELECT c.seq, e.epoch, e.recorded_at, c.occurred_at, c.content
         FROM content c JOIN envelope e ON e.seq = c.seq WHERE true",
    );
    if let Some(before) = page.before_seq {
        query.push(" AND c.seq < ").push_bind(before);
    }
    if let Some(text) = &filter.text {
        query
            .push(" AND c.words @@ plainto_tsquery('pg_catalog.simple', ")
            .push_bind(derive::storable(text))
            .push(")");
    }
    if let Some(room) = &filter.room {
        query.push(" AND c.room = ").push_bind(derive::key(room));
    }
    if let Some(actor) = &filter.actor {
        query.push(" AND c.actor = ").push_bind(derive::key(actor));
    }
    match filter.action.as_deref().map(|action| (action, action.strip_suffix('.'))) {
        None => {}
        // "/" follows "." in the C collation, so this range is the prefix, and can use an index.
        Some((_, Some(prefix))) => {
            let prefix = derive::key(prefix);
            query.push(" AND c.action >= ").push_bind(format!("{prefix}."));
            query.push(" AND c.action < ").push_bind(format!("{prefix}/"));
        }
        Some((action, None)) => {
            query.push(" AND c.action = ").push_bind(derive::key(action));
        }
    }
    if let Some(category) = filter.category {
        query.push(" AND c.category = ").push_bind(i16::from(category_number(category)));
    }
    if let Some(since) = filter.since {
        query.push(" AND c.occurred_at >= ").push_bind(since.to_sqlx());
    }
    if let Some(until) = filter.until {
        query.push(" AND c.occurred_at < ").push_bind(until.to_sqlx());
    }
    // One more than asked for tells whether there is another page.
    query.push(" ORDER BY c.seq DESC LIMIT ").push_bind(i64::from(page.limit.clamp(1, 1000)) + 1);
    query
}

#[async_trait]
impl AuditReader for PgReader {
    async fn search(
        &self,
        filter: &SearchFilter,
        page: PageRequest,
    ) -> Result<Page<StoredRecord>, StoreError> {
        let rows: Vec<RecordRow> =
            query(filter, page).build_query_as().fetch_all(&self.pool).await.map_err(map)?;
        let limit = usize::from(page.limit.clamp(1, 1000));
        let more = rows.len() > limit;
        let items: Vec<StoredRecord> = rows.into_iter().take(limit).map(record).collect::<Result<_, _>>()?;
        let next_before_seq = if more { items.last().map(|item| item.seq) } else { None };
        Ok(Page { items, next_before_seq })
    }

    async fn rooms(
        &self,
        filter: &RoomFilter,
        after: Option<&RoomId>,
        limit: u32,
    ) -> Result<Vec<RoomNote>, StoreError> {
        rooms::read(&self.pool, filter, after, limit).await
    }

    async fn head(&self) -> Result<TrailPoint, StoreError> {
        let mut connection = self.pool.acquire().await.map_err(map)?;
        Ok(continuity::read_head(&mut connection).await?.point())
    }
}
