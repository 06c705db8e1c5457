//! The writer of a trail.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use async_trait::async_trait;
use jiff::{Timestamp, civil::Date, tz::TimeZone};
use jiff_sqlx::{Date as SqlDate, ToSqlx as _};
use rand::{Rng as _, rngs::StdRng};
use secrecy::SecretString;
use sqlx::{Acquire as _, PgPool, types::Uuid};
use tokio::sync::{Mutex, OnceCell};

use super::{
    Endpoint,
    append::{self, Failed, Sequencer, Written},
    continuity, lookup, map, media, migrate, pooling,
    prepare::{Prepared, SourceKey},
    rooms, snapshot,
};
use crate::{
    domain::{
        EventId, RoomId,
        filter::StoredRecord,
        record::Place,
        room::{RoomFilter, RoomNote},
        trail::TrailPoint,
    },
    store::{
        Appended, AttachmentTotals, AuditStore, Batch, InboxItem, MediaHash, MediaPlace, PendingPage,
        QueuedAttachment, StoreError, Turn,
    },
    trail::envelope::whole_microseconds,
};

/// A sequencer appends, looks up and lists what is pending at the same time, not more.
const POOL: u32 = 4;
/// Longer than the server's own timeout of a statement: for a network that swallows packets.
const DEADLINE: Duration = Duration::from_mins(2);

/// Batches that go into the default partition before partitions are tried again.
const PARTITIONS_WAIT: u32 = 50;

/// What a writer needs besides its endpoint.
#[derive(Debug)]
pub struct WriterOptions {
    /// Source of salts and of the writer id; seeded by the operating system except in tests.
    pub rng: StdRng,
    /// Key of the inbox's MACs. Without it every message of the inbox counts as unauthenticated.
    pub inbox_key: Option<SecretString>,
}

/// [`AuditStore`] in Postgres.
#[derive(Debug)]
pub struct PgStore {
    endpoint: Endpoint,
    pool: PgPool,
    inbox_key: Option<SecretString>,
    source_key: OnceCell<SourceKey>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    rng: StdRng,
    sequencer: Option<Sequencer>,
    /// Partitions that are known to exist: category and first of the month.
    partitions: BTreeSet<(u8, Date)>,
    /// Batches to wait before asking for partitions again after that has failed.
    partitions_wait: u32,
}

impl PgStore {
    /// Connects when first used.
    pub fn new(endpoint: Endpoint, options: WriterOptions) -> Self {
        let WriterOptions { rng, inbox_key } = options;
        Self {
            pool: endpoint.pool(POOL),
            endpoint,
            inbox_key,
            source_key: OnceCell::new(),
            state: Mutex::new(State {
                rng,
                sequencer: None,
                partitions: BTreeSet::new(),
                partitions_wait: 0,
            }),
        }
    }

    /// Ends all connections.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    async fn source_key(&self) -> Result<SourceKey, StoreError> {
        let key = self
            .source_key
            .get_or_try_init(|| async {
                sqlx::query_scalar("SELECT source_key FROM trail_key")
                    .fetch_optional(&self.pool)
                    .await
                    .map_err(map)?
                    .map(SourceKey)
                    .ok_or_else(|| continuity::inconsistent("trail_key", "there is no row"))
            })
            .await?;
        Ok(key.clone())
    }

    async fn try_open(&self, promised: Option<&TrailPoint>) -> Result<TrailPoint, StoreError> {
        let mut state = self.state.lock().await;
        state.sequencer = None;
        pooling::refuse(&self.endpoint).await?;
        let mut connection = self.pool.acquire().await.map_err(map)?;
        migrate::require_current(&mut connection).await?;
        let mut transaction = connection.begin().await.map_err(map)?;
        let head = continuity::lock_head(&mut transaction).await?;
        if let Some(promised) = promised {
            continuity::check(&mut transaction, &head, promised).await?;
        }
        continuity::verify_last_batch(&mut transaction, &head).await?;
        let mut id = [0; 16];
        state.rng.fill_bytes(&mut id);
        let writer = Uuid::from_bytes(id);
        sqlx::query("UPDATE head SET writer = $1")
            .bind(writer)
            .execute(&mut *transaction)
            .await
            .map_err(map)?;
        transaction.commit().await.map_err(map)?;
        let point = head.point();
        state.sequencer = Some(Sequencer { writer, last: point.clone(), recorded_at: head.recorded_at });
        Ok(point)
    }

    async fn try_append(&self, batch: &Batch, recorded_at: Timestamp) -> Result<Appended, StoreError> {
        let key = self.source_key().await?;
        let mut state = self.state.lock().await;
        // Never opened, or opening failed: this process is nobody's sequencer.
        let mut sequencer = state.sequencer.clone().ok_or(StoreError::LostSequencer)?;
        sequencer.recorded_at = whole_microseconds(recorded_at).max(sequencer.recorded_at);
        let mut prepared: Vec<Prepared> = batch
            .drafts
            .iter()
            .map(|draft| Prepared::new(draft, &key, sequencer.recorded_at, &mut state.rng))
            .collect();
        self.ensure_partitions(&mut state, &prepared).await;
        let mut opaque = 0;
        let Written { head, seqs } = loop {
            match append::write(&self.pool, &sequencer, batch, &prepared, None).await {
                Ok(written) => break written,
                Err(Failed::Store(error)) => return Err(error),
                Err(Failed::Refused(error)) => {
                    let refused = self.make_opaque(&sequencer, batch, &mut prepared).await?;
                    if refused == 0 {
                        return Err(map(error));
                    }
                    opaque += refused;
                }
            }
        };
        let point = head.point();
        state.sequencer =
            Some(Sequencer { writer: head.writer, last: point.clone(), recorded_at: head.recorded_at });
        Ok(Appended { point, seqs, opaque })
    }

    /// Finds the records that the database refuses by halving, and empties their derived columns.
    /// Returns how many; none if there is nothing left to empty.
    async fn make_opaque(
        &self,
        sequencer: &Sequencer,
        batch: &Batch,
        prepared: &mut [Prepared],
    ) -> Result<usize, StoreError> {
        let mut emptied = 0;
        let mut suspects: Vec<_> = std::iter::once(0..prepared.len()).collect();
        while let Some(range) = suspects.pop() {
            match append::write(&self.pool, sequencer, batch, prepared, Some(range.clone())).await {
                Ok(_) => {}
                Err(Failed::Store(error)) => return Err(error),
                Err(Failed::Refused(error)) if range.len() == 1 => {
                    if prepared[range.start].derived.take().is_none() {
                        return Err(map(error));
                    }
                    emptied += 1;
                }
                Err(Failed::Refused(_)) => {
                    let middle = range.start + range.len() / 2;
                    suspects.push(range.start..middle);
                    suspects.push(middle..range.end);
                }
            }
        }
        if emptied == 0 {
            // Each half passes alone but not together: give up on searching any of them.
            emptied = prepared.iter_mut().filter_map(|prepared| prepared.derived.take()).count();
        }
        tracing::warn!(records = emptied, "database refused derived columns; records are stored as opaque");
        Ok(emptied)
    }

    /// Has the partitions made that the batch needs. Failing is no error: the default partition takes
    /// the rows, and they are moved when it works the next time.
    async fn ensure_partitions(&self, state: &mut State, prepared: &[Prepared]) {
        let wanted: BTreeSet<(u8, Date)> = prepared
            .iter()
            .map(|prepared| {
                let day = prepared.occurred_at.to_zoned(TimeZone::UTC).date();
                (prepared.category, day.first_of_month())
            })
            .filter(|partition| !state.partitions.contains(partition))
            .collect();
        if wanted.is_empty() {
            return;
        }
        if state.partitions_wait > 0 {
            state.partitions_wait -= 1;
            return;
        }
        match self.make_partitions(&wanted).await {
            Ok(()) => state.partitions.extend(wanted),
            Err(error) => {
                let error = map(error);
                tracing::warn!(%error, "partitions could not be made; using the default one");
                state.partitions_wait = PARTITIONS_WAIT;
            }
        }
    }

    /// Attaching a partition waits for everybody who reads the default one, and whoever comes later
    /// waits behind it; so it gives up soon.
    async fn make_partitions(&self, wanted: &BTreeSet<(u8, Date)>) -> Result<(), sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        sqlx::query("SELECT set_config('lock_timeout', '1s', true)").execute(&mut *transaction).await?;
        sqlx::query("SELECT ensure_partitions($1, $2)")
            .bind(wanted.iter().map(|(category, _)| i16::from(*category)).collect::<Vec<_>>())
            .bind(wanted.iter().map(|(_, month)| month.to_sqlx()).collect::<Vec<SqlDate>>())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await
    }
}

async fn within_deadline<T>(work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    match tokio::time::timeout(DEADLINE, work).await {
        Ok(result) => result,
        Err(elapsed) => Err(StoreError::Unavailable(Box::new(elapsed))),
    }
}

#[async_trait]
impl AuditStore for PgStore {
    async fn open(&self, promised: Option<&TrailPoint>) -> Result<TrailPoint, StoreError> {
        within_deadline(self.try_open(promised)).await
    }

    async fn append(&self, batch: &Batch, recorded_at: Timestamp) -> Result<Appended, StoreError> {
        within_deadline(self.try_append(batch, recorded_at)).await
    }

    async fn head(&self) -> Result<TrailPoint, StoreError> {
        let mut connection = self.pool.acquire().await.map_err(map)?;
        Ok(continuity::read_head(&mut connection).await?.point())
    }

    async fn cursor(&self, name: &str) -> Result<Option<String>, StoreError> {
        lookup::cursor(&self.pool, name).await
    }

    async fn find_by_source(&self, source_id: &str) -> Result<Option<StoredRecord>, StoreError> {
        let key = self.source_key().await?;
        lookup::by_source(&self.pool, key.hash(source_id)).await
    }

    async fn latest_version(
        &self,
        event_id: &EventId,
        before: Option<&Place>,
    ) -> Result<Option<StoredRecord>, StoreError> {
        let key = self.source_key().await?;
        lookup::latest_version(&self.pool, &key, event_id, before).await
    }

    async fn replacement(
        &self,
        room: &RoomId,
        event_id: &EventId,
    ) -> Result<Option<StoredRecord>, StoreError> {
        lookup::replacement(&self.pool, room, event_id).await
    }

    async fn pending(
        &self,
        room: &RoomId,
        after: Option<i64>,
        limit: u32,
    ) -> Result<PendingPage, StoreError> {
        lookup::pending(&self.pool, room, after, limit).await
    }

    async fn pending_rooms(&self) -> Result<Vec<RoomId>, StoreError> {
        lookup::pending_rooms(&self.pool).await
    }

    async fn pending_totals(&self) -> Result<Vec<(String, u64)>, StoreError> {
        lookup::pending_totals(&self.pool).await
    }

    async fn snapshots(
        &self,
        source: &'static str,
        keys: &[String],
    ) -> Result<BTreeMap<String, String>, StoreError> {
        snapshot::read(&self.pool, source, keys).await
    }

    async fn snapshot_keys(
        &self,
        source: &'static str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<String>, StoreError> {
        snapshot::keys(&self.pool, source, after, limit).await
    }

    async fn rooms(&self, after: Option<&RoomId>, limit: u32) -> Result<Vec<RoomNote>, StoreError> {
        rooms::read(&self.pool, &RoomFilter::default(), after, limit).await
    }

    async fn note_rooms(&self, notes: &[RoomNote], gone: &[RoomId]) -> Result<(), StoreError> {
        let sequencer = self.state.lock().await.sequencer.clone().ok_or(StoreError::LostSequencer)?;
        within_deadline(rooms::write(&self.pool, sequencer.writer, notes, gone)).await
    }

    async fn inbox(&self, limit: u32) -> Result<Vec<InboxItem>, StoreError> {
        super::inbox::read(&self.pool, self.inbox_key.as_ref(), limit).await
    }

    async fn attachments(
        &self,
        now: Timestamp,
        turn: Turn,
        limit: u32,
    ) -> Result<Vec<QueuedAttachment>, StoreError> {
        media::due(&self.pool, now, turn, limit).await
    }

    async fn next_attachment(&self, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        media::next(&self.pool, now).await
    }

    async fn attachment_totals(&self, failing: u32) -> Result<AttachmentTotals, StoreError> {
        media::totals(&self.pool, failing).await
    }

    async fn postpone_attachment(&self, id: i64, until: Timestamp, failed: bool) -> Result<(), StoreError> {
        media::postpone(&self.pool, id, until, failed).await
    }

    async fn has_media(&self, sha256: &MediaHash) -> Result<bool, StoreError> {
        media::is_kept(&self.pool, sha256).await
    }

    async fn keep_media(
        &self,
        sha256: &MediaHash,
        size: u64,
        place: MediaPlace<'_>,
    ) -> Result<(), StoreError> {
        within_deadline(media::keep(&self.pool, sha256, size, place)).await
    }
}
