//! Exactly once, whatever happens: while people talk, the real worker is killed with `kill -9`, and its
//! ways to the database and to the homeserver are cut, hundreds of times at points that a seed chooses.
//! Then the trail is compared with what the homeserver told the people, and what it has.
//!
//! A seed repeats the faults and what the people do; how these meet is the machine's business.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::support::{
    Client, Database, LocalWorker, Synapse,
    ledger::Said,
    proxy::Proxy,
    services::urlencode,
    sql,
    storm::{BURST, ENDED, FAULTS, KILL, KILLS, Storm},
    talkers::{Confidants, Square, Talker},
    unique,
    whole_trail::{self, Entry, WholeTrail},
};

/// When the faults have ended.
const CATCHING_UP: Duration = Duration::from_mins(4);

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

/// Identifier, type and room of every event that the homeserver has.
fn events_of(synapse: &Synapse) -> Vec<[String; 3]> {
    let query = "SELECT event_id, type, room_id FROM events WHERE NOT outlier AND rejection_reason IS NULL";
    let rows = sql::sql(&format!("synapse-{}", synapse.name), query);
    rows.lines()
        .map(|row| row.split('|').map(str::to_owned).collect::<Vec<_>>().try_into().expect("three columns"))
        .collect()
}

/// How many of them the trail does not have, after it was read again.
async fn missing(trail: &mut WholeTrail, worker: &LocalWorker, synapse: &Synapse) -> usize {
    trail.read_on(worker).await;
    events_of(synapse).iter().filter(|[id, ..]| trail.of_event(id).is_empty()).count()
}

impl Storm {
    /// Waits until the trail has everything, or can be waited for no longer.
    async fn calm_down(&mut self) -> WholeTrail {
        let (mut trail, started) = (WholeTrail::default(), Instant::now());
        loop {
            self.start_if_ended();
            let missing = missing(&mut trail, &self.worker, &self.synapse).await;
            let waiting = self.worker.count(
                "SELECT (SELECT count(*) FROM auditbot.pending) + (SELECT count(*) FROM auditbot.cursor \
                 WHERE name LIKE 'matrix:history:%' AND value <> '[]'::bytea)",
            );
            if (missing, waiting) == (0, 0) || started.elapsed() > CATCHING_UP {
                println!("   {missing} missing, {waiting} waiting after {:.0?}", started.elapsed());
                println!("   {}", self.without_key().replace('\n', "; "));
                return trail;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// Why events have no plaintext: reason, session, and how many.
    fn without_key(&self) -> String {
        let session = "convert_from(raw, 'UTF8')::jsonb->'content'->>'session_id'";
        let query = format!("SELECT reason, {session}, count(*) FROM auditbot.pending GROUP BY 1, 2");
        sql::sql(&self.worker.database, &query)
    }

    /// What is wrong with the trail.
    fn compare(&self, trail: &WholeTrail) -> Vec<String> {
        let (accepted, there) = (self.ledger.events(), events_of(&self.synapse));
        let known: BTreeSet<&str> = there.iter().map(|[id, ..]| id.as_str()).collect();
        let mut wrong = Vec::new();
        for [id, kind, room] in &there {
            let times = trail.of_event(id).len();
            if times != 1 {
                let near = accepted.get(id).map(|event| {
                    format!("accepted at {:.2?}: {:?}{}", event.after, event.said, self.around(event.after))
                });
                wrong.push(format!("{times} times: {id} ({kind} in {room}) {}", near.unwrap_or_default()));
            }
        }
        for id in trail.events.keys().chain(trail.plaintexts.keys()).chain(accepted.keys()) {
            if !known.contains(id.as_str()) {
                wrong.push(format!("the homeserver does not know {id}"));
            }
        }
        for (id, event) in accepted.iter().filter(|(id, _)| trail.of_event(id).len() == 1) {
            if let Some(what) = wrong_in(&event.said, trail.of_event(id), trail.of_plaintext(id)) {
                let near = self.around(event.after);
                wrong.push(format!("{what}: {id} accepted at {:.2?}: {:?}{near}", event.after, event.said));
            }
        }
        wrong
    }

    /// From the cursor on there is nothing new.
    async fn unread(&self) -> Vec<String> {
        let cursor = "SELECT convert_from(value, 'UTF8') FROM auditbot.cursor WHERE name = 'matrix:sync'";
        let cursor = sql::sql(&self.worker.database, cursor);
        let path = format!("/_synapse/admin/v1/users/{}/login", urlencode(&self.worker.user_id));
        let (_, puppet) = self.synapse.admin("POST", &path, Some(json!({}))).await;
        let path = format!("/_matrix/client/v3/sync?timeout=0&since={}", urlencode(&cursor));
        let (status, news) =
            self.synapse.request("GET", &path, puppet["access_token"].as_str().unwrap(), None).await;
        assert_eq!(status, 200, "{news}");
        let rooms = news["rooms"]["join"].as_object().into_iter().flatten();
        let events = rooms.flat_map(|(_, room)| room["timeline"]["events"].as_array().into_iter().flatten());
        events.map(|event| format!("after the cursor: {}", event["event_id"])).collect()
    }

    fn print(&self, trail: &WholeTrail) {
        println!("-- faults");
        for (name, count) in &self.counts {
            println!("   {count:>6} {name}");
        }
        println!("-- accepted");
        for (name, count) in self.ledger.counts() {
            println!("   {count:>6} {name}");
        }
        println!("-- requests of the worker that reached its proxy");
        for (name, count) in self.homeserver.requests() {
            println!("   {count:>6} {name}");
        }
        println!(
            "-- recorded: {} records, {} of events, {} of late plaintexts",
            trail.size,
            trail.events.len(),
            trail.plaintexts.len()
        );
    }
}

/// What a record does not say of its event.
fn wrong_in(said: &Said, events: &[Entry], plaintexts: &[Entry]) -> Option<&'static str> {
    let both = || events.iter().chain(plaintexts);
    let says = |entry: &&Entry, body: &str| entry.text.as_deref() == Some(body);
    let once = |body: &str| both().filter(|entry| says(entry, body)).count() == 1;
    let edited = |body: &str| {
        let edits = both().filter(|entry| entry.action == "message.edited");
        let shown = edits.filter_map(|entry| entry.body.as_ref());
        let whole = |(before, after): &&(Option<Value>, Option<Value>)| {
            before.as_ref().is_some_and(Value::is_string) && *after == Some(json!(body))
        };
        shown.filter(whole).count() == 1
    };
    let twice = plaintexts.len() > 1;
    let wrong = |fine: bool, what| (!fine).then_some(what);
    match said {
        _ if twice => Some("its plaintext is there more than once"),
        Said::Plain(body) => wrong(once(body), "the record has another text"),
        Said::Encrypted(body) => wrong(once(body), "its plaintext is not there exactly once"),
        Said::Edit(body) | Said::EncryptedEdit(body) => {
            wrong(edited(body), "the edit is not there with before and after exactly once")
        }
        Said::Doomed | Said::Other(_) => None,
    }
}

/// Everybody who talks.
struct Crowd {
    square: Square,
    talkers: Vec<tokio::task::JoinHandle<()>>,
    confidants: std::thread::JoinHandle<()>,
}

impl Crowd {
    async fn gather(synapse: &Synapse, square: &Square, bot: &str, rng: &mut StdRng) -> Self {
        let mut talkers = Vec::new();
        for name in ["alice", "bob", "carol"] {
            let person = synapse.register(name);
            let mut talker = Talker::new(square, synapse, &person, rng.random());
            talker.found(&format!("room of {name}")).await;
            talkers.push(talker);
        }
        let mut client = Client::start();
        for name in ["dave", "erin"] {
            client.login(synapse, &synapse.register(name));
        }
        let people = ["dave".to_owned(), "erin".to_owned()];
        let (confidants, second) =
            (Confidants { client, people, bot: bot.to_owned() }, synapse.user_id("erin"));
        let (there, seed) = (square.clone(), rng.random());
        Self {
            square: square.clone(),
            talkers: talkers.into_iter().map(|talker| tokio::spawn(talker.talk())).collect(),
            confidants: std::thread::spawn(move || confidants.talk(&there, &second, seed)),
        }
    }

    async fn fall_silent(self) {
        self.square.silence.cancel();
        for talker in self.talkers {
            talker.await.expect("a talker talks to the end");
        }
        let ended = tokio::task::spawn_blocking(|| self.confidants.join()).await.unwrap();
        assert!(ended.is_ok(), "the client with encryption talks to the end");
    }
}

fn square() -> Square {
    Square { ledger: Arc::default(), rooms: Arc::default(), silence: CancellationToken::new() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_accepted_event_is_in_the_trail_once_whatever_is_killed_and_cut() {
    let faults = from_environment("EMS_TEST_FAULTS").unwrap_or(FAULTS);
    let seed = from_environment("EMS_TEST_SEED").unwrap_or_else(|| u64::from(rand::rng().random::<u32>()));
    println!("== {faults} faults; to repeat them: EMS_TEST_SEED={seed}");
    let (started, mut rng) = (Instant::now(), StdRng::seed_from_u64(seed));
    let synapse = Arc::new(Synapse::up_with(&unique("storm"), &["--limits", "off"], None));
    let database = Database::tenant(&unique("storm").replace('-', "_"));
    let mut worker = LocalWorker::prepare("auditbot", &synapse, &database).await;
    let port = |url: &str| url::Url::parse(url).unwrap().port().unwrap();
    let homeserver = Proxy::open(port(&synapse.host_url)).await;
    let way = Proxy::open(port(&database.host_url)).await;
    worker.go_through(homeserver.port, way.port);
    worker.start(&synapse);
    worker.wait_ready().await;
    println!("-- ready after {:.0?}; people begin to talk", started.elapsed());
    let square = square();
    let ledger = square.ledger.clone();
    let crowd = Crowd::gather(&synapse, &square, &worker.user_id, &mut rng).await;
    let mut burster = Talker::new(&square, &synapse, &synapse.register("frank"), rng.random());
    let full_room = burster.found("full room").await;
    let mut storm = Storm {
        rng,
        worker,
        synapse: synapse.clone(),
        homeserver,
        database: way,
        ledger,
        burster,
        full_room,
        counts: BTreeMap::new(),
        history: Vec::new(),
    };
    storm.rage(faults).await;
    crowd.fall_silent().await;
    println!("-- silence after {:.0?}; the trail catches up", started.elapsed());
    let trail = storm.calm_down().await;
    storm.print(&trail);
    let mut wrong = storm.compare(&trail);
    wrong.extend(whole_trail::verify(&storm.worker));
    wrong.extend(storm.unread().await);
    for what in wrong.iter().take(40) {
        println!("!! {what}");
    }
    println!("== {faults} faults with EMS_TEST_SEED={seed} in {:.0?}", started.elapsed());
    assert!(wrong.is_empty(), "{} things are wrong with the trail; EMS_TEST_SEED={seed}", wrong.len());
    let ended = storm.counts.remove(ENDED).unwrap_or(0);
    assert!(ended * 10 <= faults, "it ended {ended} times by itself");
    assert!(storm.counts.values().sum::<u64>() >= faults && storm.counts[KILL] * FAULTS >= faults * KILLS);
    assert!(storm.homeserver.requests()["/messages"] > 0, "no history had to be read");
    let accepted = storm.ledger.counts();
    assert!(accepted["encrypted messages"] >= 20 && accepted["messages"] >= 500, "{accepted:?}");
    storm.worker.kill();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_reached_the_homeserver_late_is_recorded_though_it_is_old_in_its_room() {
    let synapse = Synapse::up_with(&unique("late"), &["--limits", "off"], None);
    let database = Database::tenant(&unique("late").replace('-', "_"));
    let mut worker = LocalWorker::prepare("auditbot", &synapse, &database).await;
    worker.start(&synapse);
    let mut talker = Talker::new(&square(), &synapse, &synapse.register("alice"), 1);
    let room = talker.found("long room").await;
    talker.burst(&room, 120).await;
    worker.wait_ready().await;
    let mut trail = WholeTrail::default();
    all_recorded(&mut trail, &worker, &synapse).await;
    worker.kill();
    // The homeserver may answer the long poll of the killed worker with the first one, and the next worker
    // with the same.
    talker.burst(&room, 3).await;
    let late = talker.say(&room).await;
    talker.burst(&room, BURST).await;
    // As an event of another server that was cut off from this one: received now, and older in the room's
    // history than what everybody here has said since.
    let database_of_synapse = format!("synapse-{}", synapse.name);
    let old = format!("UPDATE events SET topological_ordering = 9, depth = 9 WHERE event_id = '{late}'");
    sql::sql(&database_of_synapse, &old);
    worker.start(&synapse);
    all_recorded(&mut trail, &worker, &synapse).await;
    assert_eq!(trail.of_event(&late).len(), 1);
    worker.kill();
}

async fn all_recorded(trail: &mut WholeTrail, worker: &LocalWorker, synapse: &Synapse) {
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        let missing = missing(trail, worker, synapse).await;
        if missing == 0 {
            return;
        }
        assert!(Instant::now() < deadline, "{missing} events are missing");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
