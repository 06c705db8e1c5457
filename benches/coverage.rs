//! Coverage of a homeserver in memory with 100,000 rooms that answers at once: what the loop remembers of them, how
//! long it takes to come into all of them, and how it keeps up with people who undo it:
//! `cargo bench --bench coverage`.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark prints, and fails by panicking")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use ems_bots::{
    coverage::{
        Act, ActLog, ActLogError, ActOutcome, BookError, Control, CoverageState, Hint, RoomBook, Runner,
        RunnerSettings, planner::Identity,
    },
    domain::{Localpart, RoomId, ServerName, SystemClock, UserId, room::RoomNote},
    homeserver::{
        Session,
        mock::{MockHomeserver, RoomKind},
    },
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Until all rooms are covered.
const LONGEST: Duration = Duration::from_mins(10);
/// Of [`churn`].
const SEED: u64 = 1;

/// Counts, and keeps nothing.
#[derive(Default)]
struct Counts {
    acts: AtomicUsize,
    notes: AtomicUsize,
}

#[async_trait]
impl ActLog for Counts {
    async fn intend(&self, _: &Act) -> Result<(), ActLogError> {
        self.acts.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn outcome(&self, _: &Act, _: &ActOutcome) -> Result<(), ActLogError> {
        Ok(())
    }

    fn recalled(&self, _: &RoomId) -> Option<String> {
        None
    }

    async fn forget_recalled(&self, _: &RoomId) -> Result<(), ActLogError> {
        Ok(())
    }
}

#[async_trait]
impl RoomBook for Counts {
    async fn open(&self) -> Result<(Vec<RoomNote>, bool), BookError> {
        Ok((Vec::new(), false))
    }

    async fn close(&self) -> Result<(), BookError> {
        Ok(())
    }

    async fn write(&self, notes: &[RoomNote], gone: &[RoomId]) -> Result<(), BookError> {
        self.notes.fetch_add(notes.len() + gone.len(), Ordering::Relaxed);
        Ok(())
    }
}

struct World {
    homeserver: MockHomeserver,
    creator: UserId,
    bot: UserId,
    admin: Session,
    rooms: Vec<RoomId>,
}

impl World {
    /// With people's rooms, in which the bot is an admin or of which it knows nothing.
    fn with_rooms(count: usize, is_covered: bool) -> Self {
        let homeserver = MockHomeserver::new(ServerName::parse("here.org").unwrap());
        let account = |name: &str, admin| homeserver.add_user(&Localpart::parse(name).unwrap(), admin);
        let (creator, bot) = (account("alice", false).user_id, account("bot", false).user_id);
        let others: Vec<UserId> =
            (0..3).map(|number| account(&format!("member{number}"), false).user_id).collect();
        let admin = account("bot-admin", true);
        homeserver.world().users.get_mut(admin.user_id.as_str()).unwrap().unlimited = true;
        let mut world = Self { homeserver, creator, bot, admin, rooms: Vec::new() };
        for _ in 0..count {
            let room = world.new_room();
            for member in &others {
                world.homeserver.force_membership(&room, member, "join");
            }
            if is_covered {
                world.homeserver.force_membership(&room, &world.bot, "join");
                world.write_power(&room, 100);
            }
        }
        world
    }

    fn new_room(&mut self) -> RoomId {
        let room = self.homeserver.create_room(&self.creator, "11", RoomKind::Private);
        self.rooms.push(room.clone());
        room
    }

    fn write_power(&self, room: &RoomId, level: i64) {
        let users = json!({self.creator.as_str(): 100, self.bot.as_str(): level});
        let content = json!({"users": users, "state_default": 50});
        self.homeserver.force_state(room, &self.creator, "m.room.power_levels", "", content);
    }

    /// What people do against the bot, and without it. The result is the room of which sync would tell it.
    fn disturb(&mut self, rng: &mut StdRng) -> Option<RoomId> {
        let room = self.rooms[rng.random_range(0..self.rooms.len())].clone();
        match rng.random_range(0..4) {
            0 => {
                self.new_room();
                return None;
            }
            1 => self.homeserver.force_membership(&room, &self.bot, "leave"),
            // Nobody bans whom they have no more power than, and nobody could lift it.
            2 => {
                self.write_power(&room, 0);
                self.homeserver.force_membership(&room, &self.bot, "ban");
            }
            _ => self.write_power(&room, 0),
        }
        Some(room)
    }

    fn is_admin_everywhere(&self) -> bool {
        let holds = |room| {
            self.homeserver.membership(room, &self.bot) == "join"
                && self.homeserver.power(room, &self.bot) == 100
        };
        self.rooms.iter().all(holds)
    }
}

struct Running {
    counts: Arc<Counts>,
    hints: mpsc::UnboundedSender<Hint>,
    state: watch::Receiver<CoverageState>,
    cancel: CancellationToken,
    task: tokio::task::JoinHandle<()>,
    _wishes: watch::Sender<Control>,
}

impl Running {
    fn start(world: &World) -> Self {
        let counts = Arc::new(Counts::default());
        let identity = Identity { bot: world.bot.clone(), server: ServerName::parse("here.org").unwrap() };
        let runner = Runner::new(
            Arc::new(world.homeserver.clone()),
            world.admin.clone(),
            identity,
            counts.clone(),
            counts.clone(),
            Arc::new(SystemClock),
            // What is measured is the loop itself, and not its pace.
            RunnerSettings { visits_a_second: u32::MAX, ..RunnerSettings::default() },
        );
        let (wishes, control) = watch::channel(Control::default());
        let (reports, state) = watch::channel(CoverageState::default());
        let cancel = CancellationToken::new();
        let (hints, hinted) = mpsc::unbounded_channel();
        let task = tokio::spawn(runner.run(control, hinted, reports, cancel.clone()));
        Self { counts, hints, state, cancel, task, _wishes: wishes }
    }

    async fn covers(&mut self, rooms: usize) {
        let all = |state: &CoverageState| state.totals.covered == rooms as u64 && state.totals.pending == 0;
        let done = tokio::time::timeout(LONGEST, self.state.wait_for(all)).await.is_ok();
        assert!(done, "{rooms} rooms are not covered after {LONGEST:?}: {:?}", self.state.borrow().totals);
    }

    async fn stop(self) {
        self.cancel.cancel();
        self.task.await.unwrap();
    }
}

fn resident_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1000.0
}

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let count = number("EMS_BENCH_ROOMS", 100_000);
    let seconds = number("EMS_BENCH_SECONDS", 60);

    let mut world = World::with_rooms(count, true);
    let (before, started) = (resident_mb(), Instant::now());
    let mut bot = Running::start(&world);
    bot.covers(count).await;
    let (time, memory) = (started.elapsed(), resident_mb() - before);
    let acts = bot.counts.acts.load(Ordering::Relaxed);
    println!(
        "{count} rooms, all covered: known after {time:.1?}, {acts} acts, {memory:.0} MB more than before"
    );

    churn(&mut world, &mut bot, seconds).await;
    bot.stop().await;
    drop(world);

    let world = World::with_rooms(count, false);
    let started = Instant::now();
    let mut bot = Running::start(&world);
    bot.covers(count).await;
    assert!(world.is_admin_everywhere());
    let acts = bot.counts.acts.load(Ordering::Relaxed);
    println!("{count} rooms, none covered: all covered after {:.1?}, {acts} acts", started.elapsed());
    bot.stop().await;
}

/// A hundred times a second somebody makes a room, or kicks, bans or demotes the bot.
async fn churn(world: &mut World, bot: &mut Running, seconds: usize) {
    let mut rng = StdRng::seed_from_u64(SEED);
    let before = bot.counts.acts.load(Ordering::Relaxed);
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    let mut uncovered = Vec::new();
    for turn in 0..seconds * 100 {
        tick.tick().await;
        if let Some(room) = world.disturb(&mut rng) {
            bot.hints.send(Hint::Room(room)).unwrap();
        }
        if turn % 100 == 99 {
            uncovered.push(world.rooms.len() as u64 - bot.state.borrow().totals.covered);
        }
    }
    let ended = Instant::now();
    bot.covers(world.rooms.len()).await;
    while !world.is_admin_everywhere() {
        assert!(ended.elapsed() < LONGEST, "the loop believes in what is not so");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    uncovered.sort_unstable();
    println!(
        "{seconds} s of churn, 100 disturbances a second (seed {SEED}): {} acts, not covered at a time: median {}, most \
         {}; all covered {:.1?} after its end",
        bot.counts.acts.load(Ordering::Relaxed) - before,
        uncovered[uncovered.len() / 2],
        uncovered[uncovered.len() - 1],
        ended.elapsed()
    );
}
