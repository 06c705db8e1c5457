//! Faults at points that a generator chooses, of a worker and its ways to its homeserver and its database.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use rand::{RngExt as _, rngs::StdRng, seq::SliceRandom as _};

use super::{
    LocalWorker, Synapse,
    ledger::Ledger,
    proxy::{CANNED, Fault, Proxy},
    talkers::Talker,
};

/// The goal; `EMS_TEST_FAULTS` asks for more or fewer.
pub const FAULTS: u64 = 500;
/// Of [`FAULTS`], so many are `kill -9`.
pub const KILLS: u64 = 80;
/// More than /sync tells of a room at once.
pub const BURST: usize = 130;

pub const KILL: &str = "kill -9";
pub const ENDED: &str = "ended by itself";

/// The faults, and whom they strike.
pub struct Storm {
    pub rng: StdRng,
    pub worker: LocalWorker,
    pub synapse: Arc<Synapse>,
    pub homeserver: Proxy,
    pub database: Proxy,
    pub ledger: Arc<Ledger>,
    /// Who fills a room while the worker is away.
    pub burster: Talker,
    pub full_room: String,
    pub counts: BTreeMap<&'static str, u64>,
    /// What struck when.
    pub history: Vec<(Duration, String)>,
}

impl Storm {
    fn milliseconds(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.rng.random_range(range))
    }

    fn note(&mut self, name: &'static str, detail: &str) {
        *self.counts.entry(name).or_default() += 1;
        self.history.push((self.ledger.now(), format!("{name} {detail}")));
    }

    /// So many faults, with people talking meanwhile.
    pub async fn rage(&mut self, faults: u64) {
        let kills = (faults * KILLS).div_ceil(FAULTS);
        let mut plan: Vec<bool> = (0..faults).map(|at| at < kills).collect();
        plan.shuffle(&mut self.rng);
        let (mut killed, started) = (0, Instant::now());
        for (at, kill) in plan.into_iter().enumerate() {
            self.start_if_ended();
            let wait = self.milliseconds(0..500);
            tokio::time::sleep(wait).await;
            if kill {
                killed += 1;
                self.kill(killed % 8 == 4).await;
            } else {
                self.disturb().await;
            }
            if at % 50 == 49 {
                let accepted = self.ledger.events().len();
                println!("   {} faults in {:.0?}, {accepted} events accepted", at + 1, started.elapsed());
            }
        }
    }

    /// As the kubelet does.
    pub fn start_if_ended(&mut self) {
        if let Some(code) = self.worker.ended() {
            self.note(ENDED, &format!("with {code}"));
            self.worker.start(&self.synapse);
        }
    }

    async fn kill(&mut self, with_burst: bool) {
        let (way, name) = match self.rng.random_range(0..4) {
            0 => (None, "at any moment"),
            1 => (Some((self.homeserver.clone(), 40_000)), "in its conversation with the homeserver"),
            _ => (Some((self.database.clone(), 8_000)), "in its conversation with the database"),
        };
        if let Some((way, most)) = way {
            let byte = self.rng.random_range(1..most);
            way.strike(Fault::Hold(byte), Duration::from_secs(2)).await;
        }
        self.start_if_ended();
        self.worker.kill();
        self.note(KILL, name);
        if with_burst {
            self.burster.burst(&self.full_room, BURST).await;
        }
        self.worker.start(&self.synapse);
        if with_burst {
            let canned = &CANNED[self.rng.random_range(0..CANNED.len())];
            if self.homeserver.strike(Fault::Answer(canned, "/messages"), Duration::from_secs(8)).await {
                self.note(canned.name, "instead of a page of history");
            }
        } else if self.rng.random_range(0..4) > 0 {
            self.work_for_a_while().await;
        }
    }

    /// Some are killed or disturbed while they start, most of them later.
    async fn work_for_a_while(&self) {
        let deadline = Instant::now() + Duration::from_secs(8);
        while Instant::now() < deadline && self.worker.get("/readyz").await.0 != 200 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn disturb(&mut self) {
        loop {
            self.start_if_ended();
            let of_database = self.rng.random::<bool>();
            let fault = if of_database { self.network_fault(6_000) } else { self.homeserver_fault() };
            let way = if of_database { &self.database } else { &self.homeserver };
            // There may be no occasion for this one: nobody asks for it, or nobody is there.
            if way.strike(fault, Duration::from_millis(1500)).await {
                let of = if of_database { "database" } else { "homeserver" };
                self.note(fault.name(), &format!("of the {of}: {}", fault.detail()));
                return;
            }
        }
    }

    fn network_fault(&mut self, bytes: usize) -> Fault {
        match self.rng.random_range(0..4) {
            0 => Fault::Refuse(self.milliseconds(20..900)),
            1 => Fault::Reset(self.rng.random_range(1..bytes)),
            2 => Fault::Cut(self.rng.random_range(1..bytes)),
            _ => Fault::Stall(self.milliseconds(20..1200)),
        }
    }

    fn homeserver_fault(&mut self) -> Fault {
        if self.rng.random() {
            return self.network_fault(30_000);
        }
        let canned = &CANNED[self.rng.random_range(0..CANNED.len())];
        let part = match self.rng.random_range(0..10) {
            0..5 => "/sync",
            5 => "/messages",
            6 => "/fetch_event/",
            _ => "",
        };
        Fault::Answer(canned, part)
    }

    /// What struck around this time.
    pub fn around(&self, time: Duration) -> String {
        let near = |at: &Duration| *at + Duration::from_secs(2) > time && *at < time + Duration::from_secs(6);
        let near = self.history.iter().filter(|(at, _)| near(at));
        let lines: Vec<String> = near.map(|(at, what)| format!("\n        {at:.2?} {what}")).collect();
        lines.concat()
    }
}
