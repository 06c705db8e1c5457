//! Figures of coverage, beside what the same homeserver does for a loop that only makes the bot an admin and joins.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use ems_bots::{
    coverage::Control,
    domain::{Clock as _, SystemClock},
};
use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{LONG, percentiles, rate, size};
use crate::support::{
    Database, LocalWorker, Synapse,
    coverage_bot::{self, Log},
    eventually, init,
    proxy::Proxy,
    services::urlencode,
    unique,
};

/// So many requests at a time for whoever only does what must be done.
const AT_ONCE: usize = 8;

/// One connection pool, and one account.
#[derive(Clone)]
struct Caller {
    http: reqwest::Client,
    url: String,
    token: String,
}

impl Caller {
    fn new(synapse: &Synapse, token: &str) -> Self {
        init();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { http, url: synapse.host_url.clone(), token: token.to_owned() }
    }

    async fn post(&self, path: &str, body: &Value) -> Value {
        let request = self.http.post(format!("{}{path}", self.url)).bearer_auth(&self.token).json(body);
        let answer = request.send().await.expect("the homeserver answers");
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
        answer.json().await.unwrap()
    }

    async fn create_room(&self, name: &str) -> String {
        let body = json!({"preset": "private_chat", "name": name});
        self.post("/_matrix/client/v3/createRoom", &body).await["room_id"].as_str().unwrap().to_owned()
    }

    async fn create_rooms(&self, count: usize) -> Vec<String> {
        let made = |number: usize| async move { self.create_room(&format!("room {number}")).await };
        stream::iter(0..count).map(made).buffer_unordered(AT_ONCE).collect().await
    }
}

/// The least that can be done: the bare limit of the homeserver.
async fn bare_loop(synapse: &Synapse, name: &str, rooms: &[String]) -> Duration {
    let bot = synapse.register(name);
    let (admin, own) =
        (Caller::new(synapse, &synapse.admin_token()), Caller::new(synapse, &bot.access_token));
    let (admin, own, bot) = (&admin, &own, &bot);
    let started = Instant::now();
    let visit = |room: &String| {
        let room = urlencode(room);
        async move {
            let path = format!("/_synapse/admin/v1/rooms/{room}/make_room_admin");
            admin.post(&path, &json!({"user_id": bot.user_id})).await;
            own.post(&format!("/_matrix/client/v3/join/{room}"), &json!({})).await;
        }
    };
    stream::iter(rooms).map(visit).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
    started.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a figure: make bench-coverage"]
async fn existing_rooms() {
    let count = size("EMS_BENCH_ROOMS", 1_000);
    let synapse = Synapse::up_with(&unique("existing"), &["--limits", "off"], None);
    let person = synapse.register("person");
    let rooms = Caller::new(&synapse, &person.access_token).create_rooms(count).await;
    let bare = |name: &'static str| bare_loop(&synapse, name, &rooms);
    let before = bare("bare0").await;
    let (session, user) = coverage_bot::accounts(&synapse, "bot").await;
    let started = Instant::now();
    let mut bot = coverage_bot::run(&synapse, session.clone(), user.clone(), Control::default());
    bot.covered(count, LONG.as_secs()).await;
    let ours = started.elapsed();
    let mut acts: BTreeMap<&str, usize> = BTreeMap::new();
    for (act, _) in bot.log.acts.lock().unwrap().iter() {
        *acts.entry(act.kind.as_str()).or_default() += 1;
    }
    // A room is looked at once more a few seconds after something was done there.
    tokio::time::sleep(Duration::from_secs(15)).await;
    let log = bot.log.clone();
    bot.stop().await;
    let repeat = async |log: Arc<Log>, what: &str| {
        let (started, known) = (Instant::now(), log.acts.lock().unwrap().len());
        let (session, user) = (session.clone(), user.clone());
        let mut again = coverage_bot::run_with(&synapse, session, user, Control::default(), log);
        again.covered(count, LONG.as_secs()).await;
        let time = started.elapsed();
        let acts = again.log.acts.lock().unwrap().len() - known;
        println!("== the same once more, by {what}: {time:.1?}, {acts} acts");
        again.stop().await;
    };
    repeat(log, "the next process").await;
    repeat(Arc::default(), "a process that knows nothing").await;
    let after = bare("bare1").await;
    let limit = f64::midpoint(rate(count, before), rate(count, after));
    println!(
        "== {count} rooms: {:.1} rooms/s ({ours:.1?}, {acts:?}); bare loop before {:.1}, after {:.1}; ratio {:.2}",
        rate(count, ours),
        rate(count, before),
        rate(count, after),
        rate(count, ours) / limit
    );
}

/// Seconds of processor time that this homeserver has used.
fn processor_seconds(synapse: &Synapse) -> f64 {
    let config = format!("/{}/homeserver.yaml", synapse.name);
    let mut ticks = 0.0;
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if !String::from_utf8_lossy(&command).contains(&config) {
            continue;
        }
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // The name of the program, in parentheses, may contain blanks; after it, user and system time are the 12th
        // and 13th field (proc(5)).
        let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
        ticks += fields.skip(11).take(2).map(|field| field.parse::<f64>().unwrap()).sum::<f64>();
    }
    assert!(ticks > 0.0, "the process of {config} was not found");
    ticks / 100.0
}

struct Tenant {
    synapse: Synapse,
    worker: LocalWorker,
    proxy: Proxy,
    #[expect(dead_code, reason = "the worker's database, which goes with it")]
    database: Database,
}

impl Tenant {
    /// An Admin Bot in so many rooms, with the pace of production.
    async fn with_rooms(prefix: &str, count: usize, has_module: bool) -> Self {
        let name = unique(prefix);
        let bot = json!({"userId": format!("@adminbot:{name}.internal")});
        let module = json!({"module": "synapse_ems_bots.module.EmsBots", "config": {"bots": [bot]}});
        let extra = json!({"modules": if has_module { vec![module] } else { vec![] }}).to_string();
        let synapse = Synapse::up_with(&name, &["--limits", "off", "--extra", "-"], Some(&extra));
        assert_eq!(synapse.user_id("adminbot"), bot["userId"].as_str().unwrap());
        let database = Database::tenant(&unique(prefix).replace('-', "_"));
        let owner = synapse.register("owner");
        let proxy = Proxy::open(reqwest::Url::parse(&synapse.host_url).unwrap().port().unwrap()).await;
        let mut worker = LocalWorker::prepare("adminbot", &synapse, &database).await;
        worker.at_ease = true;
        worker.go_through(proxy.port, database.secret["port"].as_str().unwrap_or("5432").parse().unwrap());
        Caller::new(&synapse, &owner.access_token).create_rooms(count).await;
        let mut tenant = Self { synapse, worker, proxy, database };
        let started = Instant::now();
        tenant.worker.start(&tenant.synapse);
        tenant.worker.wait_ready().await;
        tenant.is_in(count).await;
        println!("   in {count} rooms after {:.0?}; {}", started.elapsed(), tenant.worker.memory("VmRSS"));
        tenant
    }

    /// Waits until the bot says that it covers so many rooms.
    async fn is_in(&self, count: usize) {
        let wanted = format!("ems_bots_worker_rooms{{state=\"covered\"}} {count}");
        eventually(&format!("{count} rooms to be covered"), LONG, || async {
            let (_, metrics) = self.worker.get("/metrics").await;
            if metrics.lines().any(|line| line == wanted) {
                Ok(())
            } else {
                Err(metrics.lines().filter(|line| line.starts_with("ems_bots_worker_rooms{")).collect())
            }
        })
        .await;
    }
}

type Requests = BTreeMap<&'static str, u64>;

/// How many more these are.
fn more(mut now: Requests, before: &Requests) -> Requests {
    for (purpose, count) in &mut now {
        *count -= before.get(purpose).copied().unwrap_or_default();
    }
    now
}

/// A room that somebody made.
struct Made {
    room: String,
    took: Duration,
    /// When the homeserver's answer was there.
    answered: Timestamp,
}

/// Makes rooms, so many a minute; with them, how much of a processor the homeserver used meanwhile.
async fn make_rooms(synapse: &Synapse, caller: &Caller, count: usize, pace: usize) -> (Vec<Made>, f64) {
    let mut tick = tokio::time::interval(Duration::from_mins(1) / u32::try_from(pace).unwrap());
    let (started, used) = (Instant::now(), processor_seconds(synapse));
    let mut creations = Vec::new();
    for number in 0..count {
        tick.tick().await;
        let caller = caller.clone();
        creations.push(tokio::spawn(async move {
            let asked = Instant::now();
            let room = caller.create_room(&format!("new room {number}")).await;
            Made { room, took: asked.elapsed(), answered: SystemClock.now() }
        }));
    }
    let mut made = Vec::new();
    for creation in creations {
        made.push(creation.await.unwrap());
    }
    let busy = (processor_seconds(synapse) - used) / started.elapsed().as_secs_f64() * 100.0;
    (made, busy)
}

fn creating(made: &[Made]) -> String {
    percentiles(made.iter().map(|one| one.took).collect())
}

/// When the worker had seen that it is a joined admin, by room, as its log says.
fn covered(log: &str) -> HashMap<String, Timestamp> {
    let mut all = HashMap::new();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    for line in lines.filter(|line| line["message"] == "worked on a room" && line["state"] == "Covered") {
        let at = line["timestamp"].as_str().unwrap().parse().unwrap();
        all.entry(line["room"].as_str().unwrap().to_owned()).or_insert(at);
    }
    all
}

/// How long new rooms wait for the bot while there are many, with so many a minute: from the answer to whoever made it until
/// the bot has seen that it is an admin there. Nobody watches, who would cost the homeserver as much as the bot. Before that,
/// what the bot costs while nothing happens; after it, the same without the bot.
async fn many_rooms(has_module: bool) {
    let (existing, new) = (size("EMS_BENCH_MANY_ROOMS", 2_000), size("EMS_BENCH_NEW_ROOMS", 200));
    let (how, prefix) = if has_module { ("module", "invited") } else { ("polling", "polled") };
    let paces = [(30, new / 4), (size("EMS_BENCH_ROOMS_PER_MINUTE", 120), new)];
    let mut tenant = Tenant::with_rooms(prefix, existing, has_module).await;
    let person = tenant.synapse.register("newcomer");
    let caller = Caller::new(&tenant.synapse, &person.access_token);
    tokio::time::sleep(Duration::from_mins(1)).await;
    println!("== {existing} rooms at rest: {}", at_rest(&tenant).await);
    for (pace, new) in paces {
        // What was done last is looked at once more.
        tokio::time::sleep(Duration::from_secs(10)).await;
        let before = tenant.proxy.requests();
        let (made, busy) = make_rooms(&tenant.synapse, &caller, new, pace).await;
        let waited = waited(&tenant, &made).await;
        println!(
            "== {new} rooms at {pace} a minute beside {existing}, {how}: the bot is an admin after {}; createRoom itself took \
             {}; Synapse used {busy:.0} % of a processor; {:?} requests",
            percentiles(waited),
            creating(&made),
            more(tenant.proxy.requests(), &before)
        );
    }
    tenant.worker.stop().await;
    tokio::time::sleep(Duration::from_mins(1)).await;
    println!("== the same without the worker: at rest {}", at_rest(&tenant).await);
    for (pace, new) in paces {
        let (made, busy) = make_rooms(&tenant.synapse, &caller, new, pace).await;
        let took = creating(&made);
        println!(
            "== {new} rooms at {pace} a minute: createRoom took {took}; Synapse used {busy:.0} % of a processor"
        );
    }
}

/// Waits for the bot in all these rooms; the result is how long each of them waited.
async fn waited(tenant: &Tenant, made: &[Made]) -> Vec<Duration> {
    let mut all = HashMap::new();
    eventually("the bot in all new rooms", Duration::from_mins(5), || {
        all = covered(&tenant.worker.log());
        let there = made.iter().filter(|one| all.contains_key(&one.room)).count();
        let result = if there == made.len() { Ok(()) } else { Err(format!("{there} of {}", made.len())) };
        async { result }
    })
    .await;
    for one in made {
        let standing = tenant.synapse.standing(&one.room, &tenant.synapse.user_id("adminbot")).await;
        assert_eq!(standing, ("join".to_owned(), 100), "{}", one.room);
    }
    // In it before the answer was read: at once.
    let waited = |one: &Made| Duration::try_from(all[&one.room].duration_since(one.answered));
    made.iter().map(|one| waited(one).unwrap_or_default()).collect()
}

/// What goes to the homeserver in some minutes in which nothing happens.
async fn at_rest(tenant: &Tenant) -> String {
    let minutes = size("EMS_BENCH_MINUTES", 3);
    let (before, used) = (tenant.proxy.requests(), processor_seconds(&tenant.synapse));
    let window = Duration::from_mins(minutes as u64);
    tokio::time::sleep(window).await;
    let busy = (processor_seconds(&tenant.synapse) - used) / window.as_secs_f64() * 100.0;
    let requests = more(tenant.proxy.requests(), &before);
    let per_minute = requests.values().sum::<u64>() / minutes as u64;
    format!("{per_minute} requests a minute {requests:?}; Synapse uses {busy:.1} % of a processor")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a figure: make bench-coverage"]
async fn many_rooms_by_polling() {
    many_rooms(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a figure: make bench-coverage"]
async fn many_rooms_with_the_module() {
    many_rooms(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a figure: make bench-coverage"]
async fn invitations() {
    crate::federation::refuses(size("EMS_BENCH_INVITATIONS", 1_000)).await;
}
