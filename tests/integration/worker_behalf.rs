//! What the homeserver sends in people's names because the bot asked for it is told from what they do themselves, also when
//! the worker was killed between the call and its record, and however late the next one hears of it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use ems_bots::{
    coverage::{Act, ActLog as _, ActOutcome, Hint, SentEvent, planner::StepKind},
    domain::{
        BotKind, BotName, Clock, Localpart, RoomId, ServerName, SystemClock, UserId,
        record::{Actor, event_source_id},
    },
    homeserver::mock::{MockHomeserver, RoomKind},
    store::{AuditStore as _, Batch},
    worker::{
        acts::Acts, board::Board, cover::Farewells, metrics::Metrics, ports::Presence as _,
        recorder::Recorder,
    },
};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    matrix_fake::USER,
    postgres::TestDatabase,
    store_append::now,
    worker_scene::in_time,
    worker_stage::{ROOM, Running, Stage, sync_of, until},
};

const ALICE: &str = "@alice:example.org";
const CAROL: &str = "@carol:example.org";
/// Longer than any test waits.
const NEVER: Duration = Duration::from_hours(1);

/// The machine's clock, put forward by so many seconds.
#[derive(Debug, Default)]
struct Ahead(AtomicI64);

impl Ahead {
    fn go_on(&self, seconds: i64) {
        self.0.fetch_add(seconds, Ordering::Relaxed);
    }

    fn ms(&self) -> i64 {
        self.now().as_millisecond()
    }
}

impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        SystemClock.now() + SignedDuration::from_secs(self.0.load(Ordering::Relaxed))
    }
}

/// A bot on a homeserver whose sync tells nothing before it is asked to.
struct Late {
    stage: Stage,
    homeserver: MockHomeserver,
    bot: UserId,
    alice: UserId,
    clock: Arc<Ahead>,
    /// When each event was sent.
    sent_at: BTreeMap<String, i64>,
}

impl Late {
    async fn set() -> Self {
        let homeserver = MockHomeserver::new(ServerName::parse("example.org").unwrap());
        let user = |name: &str| homeserver.add_user(&Localpart::parse(name).unwrap(), false).user_id;
        let (bot, alice, clock) = (user("auditbot"), user("alice"), Arc::<Ahead>::default());
        let mut stage = Stage::set().await;
        stage.clock = clock.clone();
        stage.leaves = Some((homeserver.clone(), Farewells::default()));
        Self { stage, homeserver, bot, alice, clock, sent_at: BTreeMap::new() }
    }

    fn room(&mut self) -> RoomId {
        let room = self.homeserver.create_room(&self.alice, "11", RoomKind::Private);
        self.date();
        room
    }

    /// What has no date yet was sent now.
    fn date(&mut self) {
        let now = self.clock.ms();
        for room in self.homeserver.world().rooms.values() {
            for id in room.events.keys() {
                self.sent_at.entry(id.clone()).or_insert(now);
            }
        }
    }

    /// The worker has the bot made an admin of the room, and is killed before it hears that it was.
    async fn killed_in(&mut self, room: &RoomId) {
        self.homeserver.delay_answers("make_room_admin", NEVER);
        let running = self.stage.start(None);
        until("it is invited", || {
            let membership = self.homeserver.membership(room, &self.bot);
            if membership == "invite" { Ok(()) } else { Err(membership) }
        })
        .await;
        running.kill().await;
        self.homeserver.delay_answers("make_room_admin", Duration::ZERO);
        self.date();
    }

    async fn covers(&mut self, rooms: u64) -> Running {
        let running = self.stage.start(None);
        until("covered", || {
            let report = running.board.get();
            let is_covered = report.rooms_covered.reason == "Covered" && report.rooms.covered == rooms;
            is_covered.then_some(()).ok_or(report.rooms_covered)
        })
        .await;
        self.date();
        running
    }

    /// The room's events as sync tells them.
    fn timeline(&self, room: &RoomId) -> Vec<Value> {
        let events = self.homeserver.world().rooms[room].events.clone();
        let mut timeline: Vec<Value> = events.values().cloned().collect();
        for event in &mut timeline {
            let id = event["event_id"].as_str().unwrap();
            event["origin_server_ts"] = self.sent_at[id].into();
            if let Some(before) = event["unsigned"]["replaces_state"].as_str().map(ToOwned::to_owned) {
                event["unsigned"]["prev_content"] = events[&before]["content"].clone();
            }
        }
        let number = |event: &Value| -> u32 {
            event["event_id"].as_str().unwrap().rsplit('-').next().unwrap().parse().unwrap()
        };
        timeline.sort_by_key(number);
        timeline
    }

    /// Sync tells all of these rooms; then the worker ends.
    async fn told(&self, rooms: &[&RoomId], running: Running) {
        let timelines: Vec<_> = rooms.iter().map(|room| (room.as_str(), self.timeline(room))).collect();
        let timelines: Vec<_> = timelines.iter().map(|(room, events)| (*room, &events[..], None)).collect();
        self.stage.scene.fake.world().syncs.insert("s1".to_owned(), sync_of("s2", &timelines));
        self.stage.until_asked("s2", 1).await;
        running.stop().await.unwrap();
    }

    /// Who sent the room's events, by the trail.
    async fn whose(&self, room: &RoomId) -> Vec<String> {
        let trail = self.stage.trail().await;
        let whose = |event: &Value| {
            let source = event_source_id(event["event_id"].as_str().unwrap());
            let record = trail.iter().find(|record| record.source_id == source).expect("it is recorded");
            let Actor::MatrixUser { id } = &record.actor else { panic!("{record:#?}") };
            record.on_behalf_of.as_ref().map_or_else(|| id.clone(), |other| format!("{id} for {other}"))
        };
        self.timeline(room).iter().map(whose).collect()
    }
}

/// Of a room that Alice made: its first events, power and invitation, and that the bot joined.
fn as_it_was() -> Vec<String> {
    let for_alice = format!("{USER} for {ALICE}");
    [ALICE, ALICE, ALICE, ALICE, &for_alice, &for_alice, USER].map(ToOwned::to_owned).into()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_worker_did_is_the_bot_s_doing_and_what_alice_does_later_is_hers() {
    for pause in [15, 300] {
        let mut late = Late::set().await;
        let room = late.room();
        late.killed_in(&room).await;
        late.clock.go_on(pause);
        let running = late.covers(1).await;
        late.clock.go_on(600);
        let levels = json!({"users": {ALICE: 100, USER: 101}});
        late.homeserver.force_state(&room, &late.alice, "m.room.power_levels", "", levels);
        late.date();
        late.told(&[&room], running).await;
        let expected = [as_it_was(), vec![ALICE.to_owned()]].concat();
        assert_eq!(late.whose(&room).await, expected, "after {pause} s");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_room_is_forgotten_for_another_one_s_sake() {
    let mut late = Late::set().await;
    let mut rooms = Vec::new();
    for _ in 0..3 {
        rooms.push(late.room());
        late.killed_in(&rooms[rooms.len() - 1]).await;
        late.clock.go_on(200);
    }
    let running = late.covers(3).await;
    late.told(&rooms.iter().collect::<Vec<_>>(), running).await;
    for room in &rooms {
        assert_eq!(late.whose(room).await, as_it_was());
    }
}

/// One process's part of coverage, with a database and a clock that outlive it.
struct Process {
    acts: Acts,
    clock: Arc<Ahead>,
    room: RoomId,
    cancel: CancellationToken,
}

impl Process {
    async fn start(database: &TestDatabase, clock: &Arc<Ahead>, seed: u64) -> Self {
        let (clock, cancel) = (clock.clone(), CancellationToken::new());
        let metrics = Metrics::new(&prometheus::Registry::new(), clock.clone()).unwrap();
        let store = Arc::new(database.writer(seed));
        let recorder = Recorder::new(store, clock.clone(), Board::new(), metrics);
        recorder.open(|| None, &cancel).await.unwrap();
        let bot = BotName { namespace: "tenant".into(), name: "auditbot".into(), kind: BotKind::Audit };
        let acts = Acts::new(bot, UserId::parse(USER).unwrap(), recorder, cancel.clone());
        acts.load(&cancel).await.unwrap();
        Self { acts, clock, room: RoomId::parse(ROOM).unwrap(), cancel }
    }

    async fn intend(&self, kind: StepKind, on_behalf_of: Option<&str>, person: Option<&str>) -> Act {
        let act = Act {
            id: format!("coverage:{}:{}", self.clock.ms(), kind.as_str()),
            room_id: self.room.clone(),
            kind,
            on_behalf_of: on_behalf_of.map(ToOwned::to_owned),
            person: person.map(ToOwned::to_owned),
            reason: "coverage",
        };
        self.acts.intend(&act).await.unwrap();
        act
    }

    async fn is_ours_in(&self, room: &RoomId, event: &Value) -> bool {
        self.acts.is_ours(room, event, &self.cancel).await.unwrap()
    }

    async fn is_ours(&self, event: &Value) -> bool {
        self.is_ours_in(&self.room, event).await
    }
}

fn member(sender: &str, user: &str, membership: &str, at: i64) -> Value {
    json!({"type": "m.room.member", "state_key": user, "sender": sender, "event_id": format!("${membership}-{at}"),
        "origin_server_ts": at, "content": {"membership": membership}})
}

fn power(id: &str, sender: &str, at: i64) -> Value {
    json!({"type": "m.room.power_levels", "state_key": "", "sender": sender, "event_id": id, "origin_server_ts": at,
        "content": {"users": {USER: 100}}})
}

#[tokio::test]
async fn all_acts_in_a_room_outlive_the_process_and_a_person_s_own_are_theirs() {
    in_time(async {
        let (database, clock) = (TestDatabase::migrated().await, Arc::<Ahead>::default());
        let process = Process::start(&database, &clock, 1).await;
        let mut times = Vec::new();
        for (kind, on_behalf_of, person) in [
            (StepKind::Recall, Some(ALICE), Some(CAROL)),
            (StepKind::Return, Some(CAROL), Some(CAROL)),
            (StepKind::MakeAdmin, Some(CAROL), None),
            (StepKind::Release, Some(CAROL), Some(CAROL)),
            (StepKind::Join, None, None),
        ] {
            times.push(clock.ms());
            process.intend(kind, on_behalf_of, person).await;
            clock.go_on(200);
        }
        drop(process);
        clock.go_on(3600);
        let process = Process::start(&database, &clock, 2).await;
        process.intend(StepKind::Join, None, None).await;
        let told = |at: &dyn Fn(usize) -> i64| {
            [
                member(ALICE, CAROL, "invite", at(0)),
                member(CAROL, CAROL, "join", at(1)),
                power("$power", CAROL, at(2)),
                member(CAROL, CAROL, "leave", at(3)),
            ]
        };
        for event in told(&|act| times[act]) {
            assert!(process.is_ours(&event).await, "{event}");
            let other = RoomId::parse("!other:example.org").unwrap();
            assert!(!process.is_ours_in(&other, &event).await, "elsewhere: {event}");
        }
        for event in told(&|_| clock.ms()) {
            assert!(!process.is_ours(&event).await, "{event}");
        }
    })
    .await;
}

#[tokio::test]
async fn an_event_that_was_seen_is_known_for_ever_whatever_its_time() {
    in_time(async {
        let (database, clock) = (TestDatabase::migrated().await, Arc::<Ahead>::default());
        let process = Process::start(&database, &clock, 1).await;
        let act = process.intend(StepKind::MakeAdmin, Some(ALICE), None).await;
        let event = SentEvent {
            event_id: "$ours".to_owned(),
            event_type: "m.room.power_levels".to_owned(),
            sender: ALICE.to_owned(),
        };
        process.acts.outcome(&act, &ActOutcome::Done { sent: vec![event] }).await.unwrap();
        drop(process);
        clock.go_on(3600);
        let process = Process::start(&database, &clock, 2).await;
        let (ours, hers) = (power("$ours", ALICE, 1_000), power("$hers", ALICE, 1_000));
        assert!(process.is_ours(&ours).await && !process.is_ours(&hers).await);
        // Coverage has seen the one, and is to look because of the other.
        let mut hints = process.acts.listen();
        for event in [&ours, &hers] {
            process.acts.told(&process.room, event, &process.cancel).await.unwrap();
        }
        assert_eq!(hints.try_recv().ok(), Some(Hint::Changed(process.room.clone())));
        assert!(hints.try_recv().is_err());
        // Many rooms later it is asked again.
        for number in 0..2_500 {
            let room = RoomId::parse(format!("!{number}:example.org")).unwrap();
            assert!(!process.is_ours_in(&room, &ours).await);
        }
        assert!(process.is_ours(&ours).await && !process.is_ours(&hers).await);
    })
    .await;
}

#[tokio::test]
async fn what_an_earlier_version_kept_is_taken_over_once() {
    in_time(async {
        let (database, clock) = (TestDatabase::migrated().await, Arc::<Ahead>::default());
        let then = clock.ms();
        let former = json!({ROOM: {"at": then}, "!other:example.org": {"at": then, "person": CAROL}});
        let store = database.writer(9);
        store.open(None).await.unwrap();
        let cursors = vec![("coverage:acts".to_owned(), former.to_string())];
        store.append(&Batch { cursors, ..Batch::default() }, now()).await.unwrap();
        drop(store);
        clock.go_on(300);
        let other = RoomId::parse("!other:example.org").unwrap();
        let mut kept = Vec::new();
        for life in 1..=3 {
            let process = Process::start(&database, &clock, life).await;
            process.intend(StepKind::Join, None, None).await;
            assert!(process.is_ours(&power("$power", ALICE, then)).await, "life {life}");
            assert!(process.is_ours_in(&other, &member(CAROL, CAROL, "leave", then)).await, "life {life}");
            assert!(!process.is_ours(&power("$power", ALICE, clock.ms())).await, "life {life}");
            let mut connection = database.superuser().await;
            let size: i64 =
                sqlx::query_scalar("SELECT sum(length(value)) FROM cursor WHERE name LIKE 'coverage:acts%'")
                    .fetch_one(&mut connection)
                    .await
                    .unwrap();
            kept.push(size);
            clock.go_on(300);
        }
        assert!(kept.iter().all(|size| *size == kept[0]), "{kept:?}");
    })
    .await;
}
