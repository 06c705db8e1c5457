//! A whole worker without coverage, on the homeserver in memory and a real Postgres, that can be
//! interrupted at every write.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use ems_bots::{
    domain::{
        BotKind, BotName, EventId, Localpart, RoomId, ServerName, SystemClock, UserId,
        filter::{SearchFilter, StoredRecord},
        record::RecordDraft,
        selection::RoomSelection,
        trail::TrailPoint,
        worker::{Instructions, SuspendCapture, WorkerReport},
    },
    homeserver::Connect as _,
    store::{Appended, AuditReader as _, AuditStore, Batch, InboxItem, PendingPage, StoreError, pg::PgStore},
    telemetry::health::Health,
    worker::{
        board::Board,
        metrics::Metrics,
        ports::{NoPresence, ReportError, Reporter},
        recorder::{Recorder, Stop},
        supervisor::Worker,
    },
};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    matrix_fake::USER,
    postgres::TestDatabase,
    store_append::ALL,
    worker_session::{PHRASE, Scene},
};

pub(crate) const ROOM: &str = "!room:example.org";

/// What happens to the batch that moves a cursor of Matrix to a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The database was not reached, so many times.
    Unreachable(u32),
    /// It is written, but the answer is lost.
    AnswerLost,
    /// The process is killed before it is written.
    KilledBefore,
    /// The process is killed when it is written.
    KilledAfter,
}

/// The real store with one fault.
struct FaultyStore {
    inner: PgStore,
    fault: Mutex<Option<(String, Fault)>>,
    /// Cancelled when the process is to be killed.
    killed: CancellationToken,
}

impl FaultyStore {
    /// The fault that is due at this batch.
    fn due(&self, batch: &Batch) -> Option<Fault> {
        let mut fault = self.fault.lock().unwrap();
        let (value, kind) = fault.clone()?;
        let of_matrix = |name: &str| name.starts_with("matrix:");
        batch.cursors.iter().find(|(name, set)| of_matrix(name) && set.contains(&value))?;
        *fault = match kind {
            Fault::Unreachable(times) if times > 1 => Some((value, Fault::Unreachable(times - 1))),
            _ => None,
        };
        Some(kind)
    }

    async fn dies(&self) -> ! {
        self.killed.cancel();
        std::future::pending().await
    }
}

fn unreachable() -> StoreError {
    StoreError::Unavailable("a fault of the test".into())
}

#[async_trait]
impl AuditStore for FaultyStore {
    async fn open(&self, promised: Option<&TrailPoint>) -> Result<TrailPoint, StoreError> {
        self.inner.open(promised).await
    }

    async fn append(&self, batch: &Batch, recorded_at: Timestamp) -> Result<Appended, StoreError> {
        match self.due(batch) {
            None => self.inner.append(batch, recorded_at).await,
            Some(Fault::Unreachable(_)) => Err(unreachable()),
            Some(Fault::AnswerLost) => {
                self.inner.append(batch, recorded_at).await?;
                Err(unreachable())
            }
            Some(Fault::KilledBefore) => self.dies().await,
            Some(Fault::KilledAfter) => {
                self.inner.append(batch, recorded_at).await?;
                self.dies().await
            }
        }
    }

    async fn head(&self) -> Result<TrailPoint, StoreError> {
        self.inner.head().await
    }

    async fn cursor(&self, name: &str) -> Result<Option<String>, StoreError> {
        self.inner.cursor(name).await
    }

    async fn find_by_source(&self, source_id: &str) -> Result<Option<StoredRecord>, StoreError> {
        self.inner.find_by_source(source_id).await
    }

    async fn latest_version(&self, event_id: &EventId) -> Result<Option<StoredRecord>, StoreError> {
        self.inner.latest_version(event_id).await
    }

    async fn pending(
        &self,
        room: &RoomId,
        after: Option<i64>,
        limit: u32,
    ) -> Result<PendingPage, StoreError> {
        self.inner.pending(room, after, limit).await
    }

    async fn pending_rooms(&self) -> Result<Vec<RoomId>, StoreError> {
        self.inner.pending_rooms().await
    }

    async fn pending_totals(&self) -> Result<Vec<(String, u64)>, StoreError> {
        self.inner.pending_totals().await
    }

    async fn inbox(&self, limit: u32) -> Result<Vec<InboxItem>, StoreError> {
        self.inner.inbox(limit).await
    }
}

/// Takes every report and forgets it: tests read the board.
struct Silent;

#[async_trait]
impl Reporter for Silent {
    async fn report(&self, _: &WorkerReport) -> Result<(), ReportError> {
        Ok(())
    }
}

/// One bot: its homeserver, its volume, its database, and what its custom resource says.
pub(crate) struct Stage {
    pub(crate) scene: Scene,
    pub(crate) database: TestDatabase,
    pub(crate) instructions: watch::Sender<Instructions>,
    pub(crate) kind: BotKind,
    starts: Mutex<u64>,
}

/// A process of the worker.
pub(crate) struct Running {
    soft: CancellationToken,
    killed: CancellationToken,
    task: JoinHandle<Result<(), Stop>>,
    pub(crate) board: Board,
    pub(crate) health: Health,
}

impl Stage {
    pub(crate) async fn set() -> Self {
        let instructions = Instructions {
            uid: "first-life".to_owned(),
            generation: 1,
            server_name: ServerName::parse("example.org").unwrap(),
            username: Localpart::parse("auditbot").unwrap(),
            display_name: "Audit Bot".to_owned(),
            rooms: RoomSelection::default(),
            suspend: false,
            suspend_capture: SuspendCapture::Skip,
            coverage_paused: false,
            repair_encryption: None,
            log_filter: String::new(),
            deleting: false,
            promised: None,
        };
        Self {
            scene: Scene::new().await,
            database: TestDatabase::migrated().await,
            instructions: watch::channel(instructions).0,
            kind: BotKind::Audit,
            starts: Mutex::new(0),
        }
    }

    /// Starts the process; the batch that sets a cursor to something with this in it meets the fault.
    pub(crate) fn start(&self, fault: Option<(&str, Fault)>) -> Running {
        let seed = {
            let mut starts = self.starts.lock().unwrap();
            *starts += 1;
            *starts
        };
        let (sessions, homeserver) = self.scene.started_with(PHRASE);
        let admin = homeserver.add_user(&Localpart::parse("operator").unwrap(), true);
        let (killed, board) = (CancellationToken::new(), Board::new());
        let store = FaultyStore {
            inner: self.database.writer_with_inbox(seed),
            fault: Mutex::new(fault.map(|(value, kind)| (value.to_owned(), kind))),
            killed: killed.clone(),
        };
        let metrics = Metrics::new(&prometheus::Registry::new(), Arc::new(SystemClock)).unwrap();
        let health = Health::default();
        let worker = Worker {
            bot: BotName { namespace: "tenant".into(), name: "auditbot".into(), kind: self.kind },
            user: UserId::parse(USER).unwrap(),
            run_id: format!("run-{seed}"),
            sessions: Arc::new(sessions),
            admin: Arc::from(homeserver.admin(admin)),
            recorder: Recorder::new(Arc::new(store), Arc::new(SystemClock), board.clone(), metrics.clone()),
            board: board.clone(),
            metrics,
            health: health.clone(),
            instructions: self.instructions.subscribe(),
            reporter: Arc::new(Silent),
            presence: Arc::new(NoPresence),
            cover: None,
            examine_every: Duration::from_mins(10),
        };
        let soft = CancellationToken::new();
        let task = tokio::spawn(Box::pin(worker.run(soft.clone())));
        Running { soft, killed, task, board, health }
    }

    /// The trail, oldest record first.
    pub(crate) async fn trail(&self) -> Vec<RecordDraft> {
        let page = self.database.reader().await.search(&SearchFilter::default(), ALL).await.unwrap();
        page.items.into_iter().rev().map(|record| record.content.expect("nothing is erased")).collect()
    }

    /// The records of what happened in the room: source, action, text, changes.
    pub(crate) async fn room_records(&self) -> Vec<Value> {
        let of_room = |draft: &RecordDraft| draft.source_id.starts_with("matrix:");
        let shown = |draft: RecordDraft| {
            let changes: Vec<_> = draft
                .changes
                .iter()
                .map(|change| json!([change.path, change.before, change.after]))
                .collect();
            json!([draft.source_id, draft.action, draft.text, changes])
        };
        self.trail().await.into_iter().filter(of_room).map(shown).collect()
    }

    /// Waits until this /sync token or page was asked for so many times.
    pub(crate) async fn until_asked(&self, what: &str, times: usize) {
        until(&format!("{what} is asked for"), || {
            let asked = self.scene.fake.world().asked.clone();
            (asked.iter().filter(|token| *token == what).count() >= times).then_some(()).ok_or(asked)
        })
        .await;
    }
}

impl Running {
    /// Ends it in order.
    pub(crate) async fn stop(self) -> Result<(), Stop> {
        self.soft.cancel();
        tokio::time::timeout(Duration::from_secs(20), self.task).await.expect("it hangs").unwrap()
    }

    /// Waits until the fault strikes, then ends it as `kill -9` does.
    pub(crate) async fn killed(self) {
        let struck = self.killed.cancelled();
        tokio::time::timeout(Duration::from_secs(30), struck).await.expect("the fault never struck");
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }

    /// Waits for it to end by itself.
    pub(crate) async fn ended(self) -> Result<(), Stop> {
        tokio::time::timeout(Duration::from_secs(30), self.task).await.expect("it goes on").unwrap()
    }
}

/// Waits until there is no objection any more.
pub(crate) async fn until<E: std::fmt::Debug>(what: &str, mut look: impl FnMut() -> Result<(), E>) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while let Err(seen) = look() {
        assert!(tokio::time::Instant::now() < deadline, "{what}: {seen:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A message of Alice.
pub(crate) fn message(id: &str, content: Value) -> Value {
    let mut event = json!({"event_id": id, "type": "m.room.message", "sender": "@alice:example.org",
        "origin_server_ts": 1_790_000_000_000_u64});
    event["content"] = content;
    event
}

pub(crate) fn text(body: &str) -> Value {
    json!({"msgtype": "m.text", "body": body})
}

/// An answer of /sync about the room; with `gap` its timeline is limited.
pub(crate) fn sync(next: &str, events: &[Value], gap: Option<&str>) -> Value {
    sync_of(next, &[(ROOM, events, gap)])
}

/// An answer of /sync about several rooms.
pub(crate) fn sync_of(next: &str, rooms: &[(&str, &[Value], Option<&str>)]) -> Value {
    let mut join = serde_json::Map::new();
    for (room, events, gap) in rooms {
        let timeline =
            json!({"events": events, "limited": gap.is_some(), "prev_batch": gap.unwrap_or("p-none")});
        join.insert((*room).to_owned(), json!({"timeline": timeline, "state": {"events": []}}));
    }
    json!({"next_batch": next, "rooms": {"join": join}})
}

/// A message of Alice whose key nobody has.
pub(crate) fn ciphertext(id: &str) -> Value {
    // Well-formed: a version, an index, 16 bytes of ciphertext, a MAC and a signature.
    let content = json!({"algorithm": "m.megolm.v1.aes-sha2", "session_id": format!("session-{id}"),
        "ciphertext": format!("AwgAEhAA{}", "AAAA".repeat(29))});
    json!({"event_id": id, "type": "m.room.encrypted", "sender": "@alice:example.org",
        "origin_server_ts": 1_790_000_000_000_u64, "content": content})
}

/// A page of /messages.
pub(crate) fn page(events: &[Value], end: &str) -> Value {
    json!({"start": "x", "end": end, "chunk": events})
}
