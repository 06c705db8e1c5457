//! The database is away for a while, and people go on talking: the worker says so and waits, without keeping what they
//! say in memory. When the database is back, the trail gets everything once, and says from when to when it got nothing.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ems_bots::domain::{Clock as _, SystemClock, record::Occurred};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::support::{
    Database, LocalWorker, Synapse, comparison,
    crowd::Crowd,
    eventually, from_environment,
    ledger::{Ledger, Said},
    metrics::Samples,
    proxy::Proxy,
    seed,
    talkers::{Square, Talker},
    unique,
    whole_trail::WholeTrail,
};

/// How long it is away; `EMS_TEST_OUTAGE_MINUTES` asks for more.
const MINUTES: u64 = 1;

/// Beside what the crowd says: messages nearly as long as Matrix allows, 48 MB of text during the outage, however long
/// that is.
const LONG: usize = 48_000;
const MESSAGES: u32 = 1_000;
const TALKATIVE: u32 = 2;

/// Kilobytes that the worker may grow by during the outage: a third of what it would need to keep only the text, once
/// and without anything around it. What it needs itself is the one answer that it cannot record yet.
const MOST_GROWTH: u64 = 16 << 10;

/// Kilobytes that it may ever take, reading all of it afterwards included: a pod has so much unless its bot says otherwise,
/// and with more it would be killed at the end of every outage.
const MOST: u64 = 1 << 20;

/// The reason in the record of an outage.
const REASON: &str = "the database could not be written to";

/// What the trail could not be told, in milliseconds since 1970.
struct Outage {
    began: i64,
    /// The worker had said so by then.
    said: i64,
    ended: i64,
}

fn now() -> i64 {
    SystemClock.now().as_millisecond()
}

/// Says long things, evenly over a time.
async fn hold_forth(mut talker: Talker, room: String, over: Duration) {
    let count = MESSAGES / TALKATIVE;
    let mut ticks = tokio::time::interval(over / count);
    for _ in 0..count {
        ticks.tick().await;
        talker.say(&room).await;
    }
}

/// People with long messages and their rooms, which the bot is in: it has recorded what they said.
async fn talkative(
    square: &Square,
    synapse: &Synapse,
    worker: &LocalWorker,
    rng: &mut StdRng,
) -> Vec<(Talker, String)> {
    let square = Square { padding: LONG, ..square.clone() };
    let mut all = Vec::new();
    for number in 0..TALKATIVE {
        let person = synapse.register(&format!("talkative{number}"));
        let mut talker = Talker::new(&square, synapse, &person, rng.random());
        let room = talker.found(&format!("long room {number}")).await;
        talker.burst(&room, 20).await;
        let last = talker.say(&room).await;
        worker.wait_for("message.sent", |record| record.source_id.ends_with(&last)).await;
        all.push((talker, room));
    }
    all
}

/// Encrypted messages that were accepted.
fn secrets(ledger: &Ledger) -> usize {
    ledger.events().values().filter(|event| matches!(event.said, Said::Encrypted(_))).count()
}

/// Cuts the way to the database while people talk. The worker has to say so, to live, and not to grow.
async fn without_database(
    worker: &mut LocalWorker,
    way: &Proxy,
    talkative: Vec<(Talker, String)>,
    length: Duration,
) -> Outage {
    let before = worker.kilobytes("VmRSS");
    let (started, began) = (Instant::now(), now());
    way.cut();
    // Some time is left for what a slow homeserver takes longer for.
    let talking: Vec<_> = talkative
        .into_iter()
        .map(|(talker, room)| tokio::spawn(hold_forth(talker, room, length * 3 / 4)))
        .collect();
    worker.wait_report("database", &["Some(false)", "DatabaseUnreachable"]).await;
    let (said, size) = (now(), trail_size(worker));
    let (mut most, mut looks) = (before, tokio::time::interval(Duration::from_millis(500)));
    while started.elapsed() < length || !talking.iter().all(tokio::task::JoinHandle::is_finished) {
        looks.tick().await;
        assert_eq!(worker.ended(), None, "it waits for the database");
        most = most.max(worker.kilobytes("VmRSS"));
    }
    for one in talking {
        one.await.expect("they say everything");
    }
    let grown = most - before;
    println!("-- {:.0?} without the database: {before} kB before, {grown} kB more", started.elapsed());
    let (live, why) = worker.get("/livez").await;
    assert_eq!(live, 200, "a restart would not bring the database back: {why}");
    let samples = Samples { text: worker.get("/metrics").await.1 };
    assert_eq!(samples.count("ems_bots_worker_check", &[("check", "database")]), 0);
    assert!(samples.count("ems_bots_worker_database_errors_total", &[("category", "unavailable")]) > 0);
    assert_eq!(trail_size(worker), size, "nothing found another way");
    assert!(grown <= MOST_GROWTH, "{grown} kB more");
    let ended = now();
    way.mend();
    Outage { began, said, ended }
}

fn trail_size(worker: &LocalWorker) -> i64 {
    worker.count("SELECT size FROM auditbot.head")
}

/// Waits until the trail has everything, or can be waited for no longer: the comparison says what it lacks.
async fn caught_up(worker: &mut LocalWorker, synapse: &Synapse, within: Duration) -> WholeTrail {
    let (mut trail, started) = (WholeTrail::default(), Instant::now());
    loop {
        assert_eq!(worker.ended(), None, "it goes on by itself");
        let missing = comparison::missing(&mut trail, worker, synapse).await;
        let waiting = comparison::waiting(worker);
        if (missing, waiting) == (0, 0) || started.elapsed() > within {
            println!("   {missing} missing, {waiting} waiting after {:.0?}", started.elapsed());
            return trail;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_database_is_away_memory_stays_bounded_and_afterwards_the_trail_is_whole() {
    let minutes = from_environment("EMS_TEST_OUTAGE_MINUTES").unwrap_or(MINUTES);
    let (length, seed) = (Duration::from_mins(minutes), seed());
    println!("== {minutes} minutes without the database; EMS_TEST_SEED={seed}");
    let (started, mut rng) = (Instant::now(), StdRng::seed_from_u64(seed));
    let synapse = Arc::new(Synapse::up_with(&unique("outage"), &["--limits", "off"], None));
    let database = Database::tenant(&unique("outage").replace('-', "_"));
    let mut worker = LocalWorker::prepare("auditbot", &synapse, &database).await;
    let homeserver = Proxy::before(&synapse.host_url).await;
    let way = Proxy::before(&database.host_url).await;
    worker.go_through(homeserver.port, way.port);
    worker.start(&synapse);
    worker.wait_ready().await;
    let square = Square::default();
    let crowd = Crowd::gather(&synapse, &square, &worker.user_id, &mut rng).await;
    let talkative = talkative(&square, &synapse, &worker, &mut rng).await;
    // The two with encryption begin when the bot is in their rooms.
    eventually("encrypted messages", Duration::from_mins(3), || async {
        let said = secrets(&square.ledger);
        if said >= 5 { Ok(()) } else { Err(format!("{said} of them")) }
    })
    .await;
    println!("-- {:.0?}: the database goes away", started.elapsed());
    let secret = secrets(&square.ledger);
    let outage = without_database(&mut worker, &way, talkative, length).await;
    assert!(secrets(&square.ledger) > secret, "people went on with encryption, too");
    worker.wait_report("database", &["Some(true)", "Connected"]).await;
    crowd.fall_silent().await;
    println!("-- {:.0?}: silence; the trail catches up", started.elapsed());
    // Much of what an hour brings is small.
    let trail = caught_up(&mut worker, &synapse, Duration::from_mins(4) + length).await;
    let wrong = comparison::all_wrong(&square.ledger, &synapse, &worker, &trail, |_| String::new()).await;
    let most = worker.kilobytes("VmHWM");
    println!(
        "== {minutes} minutes with EMS_TEST_SEED={seed} in {:.0?}; most memory {most} kB",
        started.elapsed()
    );
    println!("   accepted: {:?}", square.ledger.counts());
    assert!(wrong.is_empty(), "{} things are wrong with the trail; EMS_TEST_SEED={seed}", wrong.len());
    is_recorded(&worker, &outage).await;
    assert!(most <= MOST, "{most} kB");
    worker.kill();
}

/// One record says from when to when nothing could be recorded.
async fn is_recorded(worker: &LocalWorker, outage: &Outage) {
    let all = worker.of_action("capture.interrupted").await;
    let gaps: Vec<_> = all.iter().filter(|record| record.context.reason.as_deref() == Some(REASON)).collect();
    let [gap] = gaps[..] else { panic!("{} records of one outage: {all:#?}", gaps.len()) };
    let Occurred::Between(from, to) = gap.occurred else { panic!("no span: {gap:#?}") };
    assert!((outage.began..=outage.said).contains(&from), "from {from}; began at {}", outage.began);
    assert!(to >= outage.ended, "until {to}; ended at {}", outage.ended);
}
