//! A whole worker without coverage, on the homeserver in memory and a real Postgres, that can be
//! interrupted at every write.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use ems_bots::{
    domain::{
        BotKind, BotName, Clock, Localpart, ServerName, SystemClock, UserId,
        filter::SearchFilter,
        record::RecordDraft,
        selection::RoomSelection,
        worker::{Instructions, SuspendCapture, WorkerReport},
    },
    homeserver::{Connect as _, Inspect, mock::MockHomeserver},
    store::AuditReader as _,
    telemetry::health::Health,
    worker::{
        acts::Acts,
        board::Board,
        cover::{Cover, Farewells},
        media::{Bucket, BucketSettings},
        metrics::Metrics,
        ports::{NoPresence, Presence, ReportError, Reporter},
        recorder::{Recorder, Stop},
        supervisor::{Pace, Worker},
    },
};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    faulty_store::{Fault, FaultyStore, Seen},
    matrix_fake::USER,
    postgres::TestDatabase,
    store_append::ALL,
    worker_scene::Scene,
};

pub(crate) const ROOM: &str = "!room:example.org";

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
    /// Set: what the admin API shows is looked at.
    pub(crate) inspect: Option<Arc<dyn Inspect>>,
    pub(crate) bucket: Option<BucketSettings>,
    /// What stamps records and dates acts.
    pub(crate) clock: Arc<dyn Clock>,
    /// What capture knows of the rooms, if there is no coverage.
    pub(crate) presence: Arc<dyn Presence>,
    /// How long the inbox is watched before the trail is closed.
    pub(crate) quiet: Duration,
    /// Set: the bot is brought into the rooms of this homeserver, and leaves them when it is removed.
    pub(crate) leaves: Option<(MockHomeserver, Farewells)>,
    /// A source that lags for less is not worth a record.
    pub(crate) moment: Duration,
    starts: Mutex<u64>,
}

/// A process of the worker that does not run yet.
pub(crate) struct Process {
    pub(crate) worker: Worker,
    killed: CancellationToken,
    pub(crate) seen: Arc<Seen>,
    homeserver: MockHomeserver,
    registry: prometheus::Registry,
}

/// A process of the worker.
pub(crate) struct Running {
    /// Its admin API.
    pub(crate) homeserver: MockHomeserver,
    soft: CancellationToken,
    killed: CancellationToken,
    task: JoinHandle<Result<(), Stop>>,
    pub(crate) board: Board,
    pub(crate) health: Health,
    pub(crate) seen: Arc<Seen>,
    registry: prometheus::Registry,
}

impl Running {
    /// A counter without labels.
    pub(crate) fn counter(&self, name: &str) -> f64 {
        let families = self.registry.gather();
        let family =
            families.iter().find(|family| family.name() == name).unwrap_or_else(|| panic!("no {name}"));
        family.get_metric()[0].get_counter().get_value()
    }
}

impl Stage {
    /// For a bot that has been at work before.
    pub(crate) async fn set() -> Self {
        Self::of(Scene::established().await).await
    }

    /// For a bot that never started.
    pub(crate) async fn first() -> Self {
        Self::of(Scene::new().await).await
    }

    /// For a bot in this scene.
    pub(crate) async fn of(scene: Scene) -> Self {
        let instructions = Instructions {
            uid: "first-life".to_owned(),
            generation: 1,
            mark: String::new(),
            server_name: ServerName::parse("example.org").unwrap(),
            username: Localpart::parse("auditbot").unwrap(),
            display_name: "Audit Bot".to_owned(),
            rooms: RoomSelection::default(),
            suspend: false,
            suspend_capture: SuspendCapture::Skip,
            media: None,
            coverage_paused: false,
            repair_encryption: None,
            log_filter: String::new(),
            deleting: false,
            leaves_rooms: false,
            promised: None,
        };
        Self {
            scene,
            database: TestDatabase::migrated().await,
            instructions: watch::channel(instructions).0,
            kind: BotKind::Audit,
            inspect: None,
            bucket: None,
            clock: Arc::new(SystemClock),
            presence: Arc::new(NoPresence),
            quiet: Duration::ZERO,
            leaves: None,
            moment: Duration::from_millis(100),
            starts: Mutex::new(0),
        }
    }

    /// Starts the process; the batch that sets a cursor to something with this in it meets the fault.
    pub(crate) fn start(&self, fault: Option<(&str, Fault)>) -> Running {
        let Process { worker, killed, homeserver, seen, registry } = self.prepare(fault);
        let (board, health, soft) = (worker.board.clone(), worker.health.clone(), CancellationToken::new());
        let task = tokio::spawn(Box::pin(worker.run(soft.clone())));
        Running { homeserver, soft, killed, task, board, health, seen, registry }
    }

    /// Makes the process, in the runtime in which it is to run.
    pub(crate) fn prepare(&self, fault: Option<(&str, Fault)>) -> Process {
        let seed = {
            let mut starts = self.starts.lock().unwrap();
            *starts += 1;
            *starts
        };
        let (sessions, homeserver) = self.scene.started_with(&self.scene.phrase);
        let admin = homeserver.add_user(&Localpart::parse("operator").unwrap(), true);
        let (killed, board, sight) = (CancellationToken::new(), Board::new(), Arc::<Seen>::default());
        let store = FaultyStore {
            seen: sight.clone(),
            inner: self.database.writer_with_inbox(seed),
            fault: Mutex::new(fault.map(|(value, kind)| (value.to_owned(), kind))),
            killed: killed.clone(),
        };
        let registry = prometheus::Registry::new();
        let metrics = Metrics::new(&registry, Arc::new(SystemClock)).unwrap();
        let admin = Arc::from(homeserver.admin(admin));
        let recorder = Recorder::new(Arc::new(store), self.clock.clone(), board.clone(), metrics.clone());
        let bot = BotName { namespace: "tenant".into(), name: "auditbot".into(), kind: self.kind };
        let user = UserId::parse(USER).unwrap();
        let cover = self.leaves.as_ref().map(|(homeserver, _)| Cover {
            connect: Arc::new(homeserver.clone()),
            admin: homeserver.add_user(&Localpart::parse("admin-of-bot").unwrap(), true),
            acts: Arc::new(Acts::new(bot.clone(), user.clone(), recorder.clone(), CancellationToken::new())),
            clock: self.clock.clone(),
        });
        let acts = cover.as_ref().map(|cover| cover.acts.clone() as Arc<dyn Presence>);
        let worker = Worker {
            bot,
            user,
            operator_version: Some("1.2.3".to_owned()),
            run_id: format!("run-{seed}"),
            sessions: Arc::new(sessions),
            admin,
            recorder,
            board,
            metrics,
            health: Health::default(),
            instructions: self.instructions.subscribe(),
            reporter: Arc::new(Silent),
            presence: acts.unwrap_or_else(|| self.presence.clone()),
            cover,
            inspect: self.inspect.clone(),
            bucket: self.bucket.as_ref().map(|settings| Bucket::new(settings).unwrap()),
            pace: Pace {
                examine: Duration::from_mins(10),
                survey: Duration::from_millis(200),
                moment: self.moment,
                quiet: self.quiet,
                farewells: self.leaves.as_ref().map(|(_, farewells)| *farewells).unwrap_or_default(),
            },
        };
        Process { worker, killed, seen: sight, homeserver, registry }
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
        self.kill().await;
    }

    /// Ends it now as `kill -9` does.
    pub(crate) async fn kill(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }

    /// Waits for it to end by itself.
    pub(crate) async fn ended(self) -> Result<(), Stop> {
        tokio::time::timeout(Duration::from_secs(30), self.task).await.expect("it goes on").unwrap()
    }
}

/// A clock that stands still until a test moves it.
#[derive(Debug)]
pub(crate) struct HeldClock(Mutex<Timestamp>);

impl HeldClock {
    pub(crate) fn at(second: i64) -> Self {
        Self(Mutex::new(Timestamp::from_second(second).unwrap()))
    }

    pub(crate) fn pass(&self, hours: i64) {
        *self.0.lock().unwrap() += SignedDuration::from_hours(hours);
    }
}

impl Clock for HeldClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
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
