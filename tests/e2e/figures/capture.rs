//! Figures of capture, beside what the same homeserver does for somebody who only reads.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use ems_bots::{
    domain::{
        UserId,
        filter::{PageRequest, SearchFilter},
    },
    homeserver::{
        Connect as _, Session,
        synapse::{Connection, Settings},
    },
    store::{AuditReader as _, pg::PgReader},
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{LONG, percentiles, rate, size};
use crate::support::{
    Database, LocalWorker, Synapse, eventually,
    services::urlencode,
    sql,
    talkers::{Square, Talker},
    unique,
};

/// One homeserver, one Audit Bot, and people.
struct Stage {
    synapse: Synapse,
    database: Database,
    worker: LocalWorker,
    people: Vec<Talker>,
    http: reqwest::Client,
}

impl Stage {
    async fn set(prefix: &str, people: usize) -> Self {
        let synapse = Synapse::up_with(&unique(prefix), &["--limits", "off"], None);
        let database = Database::tenant(&unique(prefix).replace('-', "_"));
        let worker = LocalWorker::prepare("auditbot", &synapse, &database).await;
        let square = Square::default();
        let person = |number| {
            let person = synapse.register(&format!("person{number}"));
            Talker::new(&square, &synapse, &person, number)
        };
        let people = (0..people as u64).map(person).collect();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { synapse, database, worker, people, http }
    }

    /// So many rooms that everybody may join, made by the people in turns.
    async fn rooms(&mut self, count: usize) -> Vec<String> {
        let people = self.people.len();
        let found = |(at, mut person): (usize, Talker)| async move {
            let mut rooms = Vec::new();
            for number in (at..count).step_by(people) {
                rooms.push(person.found(&format!("room {number}")).await);
            }
            (person, rooms)
        };
        self.all_at_once(found).await.into_iter().flatten().collect()
    }

    /// Each person says so much in each of a share of the rooms.
    async fn fill(&mut self, rooms: &[String], each: usize) {
        let people = self.people.len();
        let rooms = Arc::new(rooms.to_vec());
        let talk = |(at, mut person): (usize, Talker)| {
            let rooms = rooms.clone();
            async move {
                for room in rooms.iter().skip(at).step_by(people) {
                    person.burst(room, each).await;
                }
                (person, ())
            }
        };
        self.all_at_once(talk).await;
    }

    async fn all_at_once<T, F>(&mut self, act: impl Fn((usize, Talker)) -> F) -> Vec<T>
    where
        T: Send + 'static,
        F: Future<Output = (Talker, T)> + Send + 'static,
    {
        let acting: Vec<_> =
            self.people.drain(..).enumerate().map(|person| tokio::spawn(act(person))).collect();
        let mut results = Vec::new();
        for one in acting {
            let (person, result) = one.await.expect("a person acts to the end");
            self.people.push(person);
            results.push(result);
        }
        results
    }

    /// Messages of the homeserver that the trail does not have.
    fn behind(&self) -> i64 {
        let there = "SELECT count(*) FROM events WHERE type = 'm.room.message' AND NOT outlier";
        let recorded = "SELECT count(*) FROM auditbot.content WHERE action = 'message.sent'";
        sql::count(&format!("synapse-{}", self.synapse.name), there) - self.worker.count(recorded)
    }

    /// Waits until the bot is in so many rooms.
    async fn joined(&self, rooms: usize) {
        let path = format!("/_synapse/admin/v1/users/{}/joined_rooms", urlencode(&self.worker.user_id));
        eventually("the bot is in all rooms", LONG, || async {
            let (_, answer) = self.synapse.admin("GET", &path, None).await;
            let total = answer["total"].as_u64().unwrap_or(0);
            if total >= rooms as u64 { Ok(()) } else { Err(format!("{total} rooms")) }
        })
        .await;
    }

    async fn caught_up(&self) {
        eventually("the trail has everything", LONG, || async {
            let behind = self.behind();
            if behind <= 0 { Ok(()) } else { Err(format!("{behind} events behind")) }
        })
        .await;
    }

    /// A session as the bot, made by an administrator: it reads what the bot reads.
    async fn reader(&self) -> String {
        let path = format!("/_synapse/admin/v1/users/{}/login", urlencode(&self.worker.user_id));
        let (status, puppet) = self.synapse.admin("POST", &path, Some(json!({}))).await;
        assert_eq!(status, 200, "{puppet}");
        puppet["access_token"].as_str().unwrap().to_owned()
    }

    async fn get(&self, token: &str, path: &str) -> String {
        let url = format!("{}/_matrix/client/v3/{path}", self.synapse.host_url);
        let answer = self.http.get(url).bearer_auth(token).send().await.expect("the homeserver answers");
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
        answer.text().await.unwrap()
    }

    /// One answer of /sync and how long it took.
    async fn sync(&self, token: &str, since: Option<&str>) -> (Value, Duration) {
        let filter = json!({"presence": {"limit": 0}, "room": {"timeline": {"limit": 100},
            "state": {"lazy_load_members": true}, "ephemeral": {"limit": 0}}});
        let mut path = format!("sync?timeout=0&filter={}", urlencode(&filter.to_string()));
        if let Some(since) = since {
            path = format!("{path}&since={}", urlencode(since));
        }
        let started = Instant::now();
        let text = self.get(token, &path).await;
        let time = started.elapsed();
        (serde_json::from_str(&text).unwrap(), time)
    }

    /// All that is new since then: how many events, and how long the homeserver took for them.
    async fn served(&self, token: &str, since: &str) -> (usize, Duration) {
        let (mut since, mut events, mut time) = (since.to_owned(), 0, Duration::ZERO);
        loop {
            let (answer, spent) = self.sync(token, Some(&since)).await;
            let rooms = answer["rooms"]["join"].as_object().into_iter().flatten();
            let new: usize =
                rooms.map(|(_, room)| room["timeline"]["events"].as_array().map_or(0, Vec::len)).sum();
            if new == 0 {
                return (events, time);
            }
            (events, time) = (events + new, time + spent);
            answer["next_batch"].as_str().unwrap().clone_into(&mut since);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a figure: make bench-capture"]
async fn sustained_rate() {
    let (rooms, each) = (size("EMS_BENCH_ROOMS", 100), 95);
    let mut stage = Stage::set("rate", 4).await;
    let rooms = stage.rooms(rooms).await;
    stage.worker.start(&stage.synapse);
    stage.worker.wait_ready().await;
    stage.joined(rooms.len()).await;
    let token = stage.reader().await;
    for round in 1..=3 {
        let (begun, _) = stage.sync(&token, None).await;
        let since = begun["next_batch"].as_str().unwrap();
        // It stands still with an open request, as between two answers.
        stage.worker.signal("STOP");
        stage.fill(&rooms, each).await;
        // Once for the homeserver's caches, which serve the worker as well.
        stage.served(&token, since).await;
        let (events, time) = stage.served(&token, since).await;
        assert_eq!(events, rooms.len() * each);
        let started = Instant::now();
        stage.worker.signal("CONT");
        stage.caught_up().await;
        let (served, captured) = (rate(events, time), rate(events, started.elapsed()));
        println!(
            "== round {round}: {events} events; served to a bare sync {served:.0}/s, recorded {captured:.0}/s, ratio {:.2}",
            captured / served
        );
    }
    stage.worker.kill();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a figure: make bench-capture"]
async fn latency_under_load() {
    let (per_second, seconds) = (size("EMS_BENCH_PER_SECOND", 50), size("EMS_BENCH_SECONDS", 60));
    let mut stage = Stage::set("latency", 5).await;
    let rooms = stage.rooms(20).await;
    stage.worker.start(&stage.synapse);
    stage.worker.wait_ready().await;
    stage.joined(rooms.len()).await;
    let ended = CancellationToken::new();
    let seen: Arc<Mutex<HashMap<String, Instant>>> = Arc::default();
    let reader = PgReader::connect(stage.worker.owner()).await.expect("the trail can be read");
    let watching = tokio::spawn(watch_trail(reader, seen.clone(), ended.clone()));
    let pause = Duration::from_secs(1) * u32::try_from(stage.people.len()).unwrap()
        / u32::try_from(per_second).unwrap();
    let count = per_second * seconds / stage.people.len();
    let rooms = Arc::new(rooms);
    let started = Instant::now();
    let taken = stage
        .all_at_once(|(at, mut person)| {
            let rooms = rooms.clone();
            async move {
                let mut ticks = tokio::time::interval(pause);
                let mut taken = Vec::new();
                for number in 0..count {
                    ticks.tick().await;
                    let asked = Instant::now();
                    let event = person.say(&rooms[(number * 7 + at) % rooms.len()]).await;
                    taken.push((event, asked, Instant::now()));
                }
                (person, taken)
            }
        })
        .await;
    let taken: Vec<_> = taken.into_iter().flatten().collect();
    let offered = rate(taken.len(), started.elapsed());
    stage.caught_up().await;
    eventually("the last one was seen", Duration::from_secs(30), || async {
        let missing = taken.iter().filter(|(event, ..)| !seen.lock().unwrap().contains_key(event)).count();
        if missing == 0 { Ok(()) } else { Err(format!("{missing} are missing")) }
    })
    .await;
    ended.cancel();
    watching.await.unwrap();
    let seen = seen.lock().unwrap();
    let answers: Vec<_> = taken.iter().map(|(_, asked, answered)| *answered - *asked).collect();
    let records: Vec<_> = taken.iter().map(|(event, asked, _)| seen[event] - *asked).collect();
    println!("== {} messages, {offered:.0}/s; from the request that sends one", taken.len());
    println!("   to the homeserver's answer: {}", percentiles(answers));
    println!("   to the record in the trail: {}", percentiles(records));
    drop(seen);
    stage.worker.kill();
}

/// Notes when each event is first found in the trail; looks every ten milliseconds.
async fn watch_trail(reader: PgReader, seen: Arc<Mutex<HashMap<String, Instant>>>, ended: CancellationToken) {
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    while ended.run_until_cancelled(ticks.tick()).await.is_some() {
        let newest = PageRequest { before_seq: None, limit: 100 };
        let page = reader.search(&SearchFilter::default(), newest).await.expect("it can be searched");
        let now = Instant::now();
        let mut seen = seen.lock().unwrap();
        for draft in page.items.into_iter().filter_map(|record| record.content) {
            if let Some(event) = draft.source_id.strip_prefix("matrix:event:") {
                seen.entry(event.to_owned()).or_insert(now);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a figure: make bench-capture"]
async fn history_of_a_large_room() {
    let events = size("EMS_BENCH_EVENTS", 100_000);
    let mut stage = Stage::set("history", 6).await;
    let room = stage.rooms(1).await.remove(0);
    let everywhere = vec![room.clone(); stage.people.len()];
    let each = events / stage.people.len();
    let started = Instant::now();
    stage.fill(&everywhere, each).await;
    println!("   {events} events were sent in {:.0?}", started.elapsed());
    stage.worker.start(&stage.synapse);
    stage.worker.wait_ready().await;
    stage.caught_up().await;
    let query = "SELECT (extract(epoch FROM max(recorded_at) - min(recorded_at)) * 1000)::bigint FROM \
                 auditbot.envelope JOIN auditbot.content USING (seq) WHERE action = 'message.sent'";
    let recording = Duration::from_millis(u64::try_from(stage.worker.count(query)).unwrap());
    let (token, started, mut read) = (stage.reader().await, Instant::now(), 0);
    let mut from = String::new();
    loop {
        let path = format!("rooms/{}/messages?dir=b&limit=100{from}", urlencode(&room));
        let page: Value = serde_json::from_str(&stage.get(&token, &path).await).unwrap();
        read += page["chunk"].as_array().unwrap().len();
        let Some(end) = page["end"].as_str() else { break };
        from = format!("&from={}", urlencode(end));
    }
    let (served, captured) = (rate(read, started.elapsed()), rate(events, recording));
    println!(
        "== {events} events; served to bare /messages {served:.0}/s, recorded {captured:.0}/s, ratio {:.2}; most memory {}",
        captured / served,
        stage.worker.memory("VmHWM")
    );
    stage.worker.kill();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a figure: make bench-capture"]
async fn memory_with_many_rooms() {
    let rooms = size("EMS_BENCH_MANY_ROOMS", 2_000);
    let mut stage = Stage::set("memory", 4).await;
    stage.rooms(rooms).await;
    let started = Instant::now();
    stage.worker.start(&stage.synapse);
    stage.worker.wait_ready().await;
    stage.joined(rooms).await;
    println!("   the bot was in {rooms} rooms after {:.0?}", started.elapsed());
    stage.caught_up().await;
    println!("== {rooms} rooms; after coming into all of them: {}", stage.worker.memory("VmRSS"));
    stage.worker.stop().await;
    let last = stage.rooms(1).await;
    stage.worker.start(&stage.synapse);
    stage.worker.wait_ready().await;
    stage.fill(&last, 10).await;
    stage.caught_up().await;
    println!(
        "== {rooms} rooms; started anew: {}, most {}",
        stage.worker.memory("VmRSS"),
        stage.worker.memory("VmHWM")
    );
    stage.worker.kill();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a figure: make bench-capture"]
async fn looking_at_many_accounts() {
    let accounts = size("EMS_BENCH_ACCOUNTS", 10_000);
    let stage = Stage::set("accounts", 1).await;
    let insert = format!(
        "INSERT INTO users (name, creation_ts) SELECT '@many' || number || ':{}', 1700000000 + number FROM \
         generate_series(1, {accounts}) AS number",
        stage.synapse.server_name
    );
    sql::sql(&format!("synapse-{}", stage.synapse.name), &insert);
    let connection = Connection::new(&Settings::new(stage.synapse.host_url.parse().unwrap())).unwrap();
    let admin = stage.synapse.admin_token();
    let (_, me) = stage.synapse.request("GET", "/_matrix/client/v3/account/whoami", &admin, None).await;
    let session = Session {
        user_id: UserId::parse(me["user_id"].as_str().unwrap()).unwrap(),
        device_id: None,
        access_token: admin.into(),
    };
    let inspect = connection.inspect(session);
    for round in 1..=3 {
        let (mut from, mut requests, mut rows, started) = (Some(0), 0, 0, Instant::now());
        while let Some(at) = from {
            let page = inspect.accounts(at).await.expect("the homeserver lists its accounts");
            (from, requests, rows) = (page.next, requests + 1, rows + page.rows.len());
        }
        assert!(rows > accounts, "{rows}");
        println!("== look {round} at {rows} accounts: {requests} requests, {:.1?}", started.elapsed());
    }
    assert!(stage.database.name.starts_with("accounts"));
}
