//! Exactly once, whatever happens: while people talk, the real worker is killed with `kill -9`, and its
//! ways to the database and to the homeserver are cut, hundreds of times at points that a seed chooses.
//! Then the trail is compared with what the homeserver told the people, and what it has.
//!
//! A seed repeats the faults and what the people do; how these meet is the machine's business.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::support::{
    Database, LocalWorker, Synapse, comparison,
    crowd::Crowd,
    from_environment,
    proxy::Proxy,
    seed, sql,
    storm::{BURST, ENDED, FAULTS, KILL, KILLS, Storm},
    talkers::{Square, Talker},
    unique,
    whole_trail::WholeTrail,
};

/// When the faults have ended.
const CATCHING_UP: Duration = Duration::from_mins(4);

impl Storm {
    /// Waits until the trail has everything, or can be waited for no longer.
    async fn calm_down(&mut self) -> WholeTrail {
        let (mut trail, started) = (WholeTrail::default(), Instant::now());
        loop {
            self.start_if_ended();
            let missing = comparison::missing(&mut trail, &self.worker, &self.synapse).await;
            let waiting = comparison::waiting(&self.worker);
            if (missing, waiting) == (0, 0) || started.elapsed() > CATCHING_UP {
                println!("   {missing} missing, {waiting} waiting after {:.0?}", started.elapsed());
                println!("   {}", comparison::without_key(&self.worker));
                return trail;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_accepted_event_is_in_the_trail_once_whatever_is_killed_and_cut() {
    let faults = from_environment("EMS_TEST_FAULTS").unwrap_or(FAULTS);
    let seed = seed();
    println!("== {faults} faults; to repeat them: EMS_TEST_SEED={seed}");
    let (started, mut rng) = (Instant::now(), StdRng::seed_from_u64(seed));
    let synapse = Arc::new(Synapse::up_with(&unique("storm"), &["--limits", "off"], None));
    let database = Database::tenant(&unique("storm").replace('-', "_"));
    let mut worker = LocalWorker::prepare("auditbot", &synapse, &database).await;
    let homeserver = Proxy::before(&synapse.host_url).await;
    let way = Proxy::before(&database.host_url).await;
    worker.go_through(homeserver.port, way.port);
    worker.start(&synapse);
    worker.wait_ready().await;
    println!("-- ready after {:.0?}; people begin to talk", started.elapsed());
    let square = Square::default();
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
    let around = |time| storm.around(time);
    let wrong = comparison::all_wrong(&storm.ledger, &storm.synapse, &storm.worker, &trail, around).await;
    let took = started.elapsed();
    println!("== {faults} faults with EMS_TEST_SEED={seed} in {took:.0?}");
    assert!(wrong.is_empty(), "{} things are wrong with the trail; EMS_TEST_SEED={seed}", wrong.len());
    let ended = storm.counts.remove(ENDED).unwrap_or(0);
    assert!(ended * 10 <= faults, "it ended {ended} times by itself");
    let (struck, killed) = (storm.counts.values().sum::<u64>(), storm.counts[KILL]);
    assert!(struck >= faults, "only {struck} of {faults} faults struck");
    assert!(killed * FAULTS >= faults * KILLS, "only {killed} of {struck} faults were kills");
    assert!(storm.homeserver.requests()["/messages"] > 0, "no history had to be read");
    let accepted = storm.ledger.counts();
    assert!(accepted["encrypted messages"] >= 20 && accepted["messages"] >= 500, "{accepted:?}");
    storm.worker.kill();
    // How long it takes is the machine's business, too, and of what else it does: only whoever knows it sets a limit.
    if let Some(minutes) = from_environment("EMS_TEST_STORM_MINUTES") {
        assert!(took <= Duration::from_mins(minutes), "it took {took:.0?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_reached_the_homeserver_late_is_recorded_though_it_is_old_in_its_room() {
    let synapse = Synapse::up_with(&unique("late"), &["--limits", "off"], None);
    let database = Database::tenant(&unique("late").replace('-', "_"));
    let mut worker = LocalWorker::prepare("auditbot", &synapse, &database).await;
    worker.start(&synapse);
    let mut talker = Talker::new(&Square::default(), &synapse, &synapse.register("alice"), 1);
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
        let missing = comparison::missing(trail, worker, synapse).await;
        if missing == 0 {
            return;
        }
        assert!(Instant::now() < deadline, "{missing} events are missing");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
