//! The coverage loop of one bot on a homeserver in memory, its rooms, and what it told its log.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use ems_bots::{
    coverage::{
        Act, ActLog, ActLogError, ActOutcome, BookError, Control, CoverageState, Hint, RoomBook, Runner,
        RunnerSettings,
        planner::{Identity, StepKind},
    },
    domain::{Clock, Localpart, RoomId, ServerName, UserId, room::RoomNote},
    homeserver::{
        Session,
        mock::{MockHomeserver, RoomKind},
    },
};
use jiff::Timestamp;
use serde_json::json;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

#[derive(Debug)]
struct FixedClock;

impl Clock for FixedClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Entry {
    Intent(Act),
    Outcome(String, ActOutcome),
}

/// Something that happens in a room.
pub(crate) type Meanwhile = Box<dyn Fn(&RoomId) + Send>;

/// Remembers what it was told; refuses while told to.
#[derive(Default)]
pub(crate) struct Log {
    entries: Mutex<Vec<Entry>>,
    recalled: Mutex<HashMap<RoomId, String>>,
    rooms: Mutex<BTreeMap<RoomId, RoomNote>>,
    notes: Mutex<usize>,
    is_closed: Mutex<bool>,
    pub(crate) refuses: Mutex<bool>,
    /// What happens in a room after each act there, before the loop goes on.
    pub(crate) meanwhile: Mutex<Option<Meanwhile>>,
}

#[async_trait]
impl ActLog for Log {
    async fn intend(&self, act: &Act) -> Result<(), ActLogError> {
        if *self.refuses.lock().unwrap() {
            return Err(ActLogError("database is gone".into()));
        }
        self.entries.lock().unwrap().push(Entry::Intent(act.clone()));
        if let (StepKind::Recall | StepKind::Return, Some(person)) = (act.kind, &act.person) {
            self.recalled.lock().unwrap().insert(act.room_id.clone(), person.clone());
        }
        Ok(())
    }

    async fn outcome(&self, act: &Act, outcome: &ActOutcome) -> Result<(), ActLogError> {
        self.entries.lock().unwrap().push(Entry::Outcome(act.id.clone(), outcome.clone()));
        if let Some(meanwhile) = &*self.meanwhile.lock().unwrap() {
            meanwhile(&act.room_id);
        }
        Ok(())
    }

    fn recalled(&self, room: &RoomId) -> Option<String> {
        self.recalled.lock().unwrap().get(room).cloned()
    }

    async fn forget_recalled(&self, room: &RoomId) -> Result<(), ActLogError> {
        self.recalled.lock().unwrap().remove(room);
        Ok(())
    }
}

#[async_trait]
impl RoomBook for Log {
    async fn open(&self) -> Result<(Vec<RoomNote>, bool), BookError> {
        Ok((self.rooms(), std::mem::take(&mut *self.is_closed.lock().unwrap())))
    }

    async fn close(&self) -> Result<(), BookError> {
        *self.is_closed.lock().unwrap() = true;
        Ok(())
    }

    async fn write(&self, notes: &[RoomNote], gone: &[RoomId]) -> Result<(), BookError> {
        if *self.refuses.lock().unwrap() {
            return Err(BookError("database is gone".into()));
        }
        let mut rooms = self.rooms.lock().unwrap();
        for note in notes {
            assert!(!gone.contains(&note.room_id), "{note:?} is noted and gone");
            rooms.insert(note.room_id.clone(), note.clone());
        }
        rooms.retain(|room, _| !gone.contains(room));
        *self.notes.lock().unwrap() += notes.len() + gone.len();
        Ok(())
    }
}

impl Log {
    pub(crate) fn rooms(&self) -> Vec<RoomNote> {
        self.rooms.lock().unwrap().values().cloned().collect()
    }

    /// How many notes were ever written.
    pub(crate) fn notes(&self) -> usize {
        *self.notes.lock().unwrap()
    }

    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.entries.lock().unwrap().clone()
    }

    pub(crate) fn intents(&self) -> Vec<Act> {
        let act = |entry: Entry| match entry {
            Entry::Intent(act) => Some(act),
            Entry::Outcome(..) => None,
        };
        self.entries().into_iter().filter_map(act).collect()
    }

    pub(crate) fn kinds(&self) -> Vec<StepKind> {
        self.intents().into_iter().map(|act| act.kind).collect()
    }
}

pub(crate) struct Bot {
    pub(crate) user: UserId,
    pub(crate) log: Arc<Log>,
    pub(crate) control: watch::Sender<Control>,
    pub(crate) hints: mpsc::UnboundedSender<Hint>,
    pub(crate) state: watch::Receiver<CoverageState>,
    cancel: CancellationToken,
    pub(crate) task: JoinHandle<()>,
}

pub(crate) fn localpart(text: &str) -> Localpart {
    Localpart::parse(text).unwrap()
}

pub(crate) fn server() -> MockHomeserver {
    MockHomeserver::new(ServerName::parse("here.org").unwrap())
}

pub(crate) fn user(homeserver: &MockHomeserver, name: &str) -> UserId {
    homeserver.add_user(&localpart(name), false).user_id
}

/// Starts the loop of one bot, with an unlimited admin account of its own.
pub(crate) fn start(homeserver: &MockHomeserver, name: &str, control: Control) -> Bot {
    let user = user(homeserver, name);
    let admin: Session = homeserver.add_user(&localpart(&format!("{name}-admin")), true);
    homeserver.world().users.get_mut(admin.user_id.as_str()).unwrap().unlimited = true;
    start_again(homeserver, &user, admin, control)
}

/// The same, once it has listed the rooms and judged those that there were.
pub(crate) async fn started(homeserver: &MockHomeserver, name: &str, control: Control) -> Bot {
    let mut bot = start(homeserver, name, control);
    bot.until("started", 5, |state| state.is_complete).await;
    bot
}

pub(crate) fn start_again(
    homeserver: &MockHomeserver,
    bot: &UserId,
    admin: Session,
    control: Control,
) -> Bot {
    run(homeserver, bot, admin, control, Arc::default())
}

/// The next process after one that ended, which finds what that one has recorded.
pub(crate) fn continue_with(homeserver: &MockHomeserver, ended: &Bot, admin: Session) -> Bot {
    continue_as(homeserver, ended, admin, Control::default())
}

/// The same with other wishes.
pub(crate) fn continue_as(homeserver: &MockHomeserver, ended: &Bot, admin: Session, control: Control) -> Bot {
    run(homeserver, &ended.user, admin, control, Arc::clone(&ended.log))
}

fn run(homeserver: &MockHomeserver, bot: &UserId, admin: Session, control: Control, log: Arc<Log>) -> Bot {
    let identity = Identity { bot: bot.clone(), server: ServerName::parse("here.org").unwrap() };
    let settings = RunnerSettings::default();
    let connect = Arc::new(homeserver.clone());
    let clock = Arc::new(FixedClock);
    let runner = Runner::new(connect, admin, identity, log.clone(), log.clone(), clock, settings);
    let (control, wishes) = watch::channel(control);
    let (hints, hinted) = mpsc::unbounded_channel();
    let (reports, state) = watch::channel(CoverageState::default());
    let cancel = CancellationToken::new();
    let task = tokio::spawn(runner.run(wishes, hinted, reports, cancel.clone()));
    Bot { user: bot.clone(), log, control, hints, state, cancel, task }
}

/// Waits until all rooms are asked for once more; the result is how many there were.
pub(crate) async fn a_list(homeserver: &MockHomeserver) -> usize {
    let before = homeserver.count("rooms");
    while homeserver.count("rooms") == before {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    homeserver.count("rooms")
}

impl Bot {
    /// Waits in virtual time; returns how long it took.
    pub(crate) async fn until(
        &mut self,
        what: &str,
        within: u64,
        is_so: impl Fn(&CoverageState) -> bool,
    ) -> Duration {
        let started = Instant::now();
        let met = timeout(Duration::from_secs(within), self.state.wait_for(|state| is_so(state))).await;
        let in_time = met.is_ok();
        drop(met);
        assert!(in_time, "{what}: not within {within} s; state is {:?}", self.state.borrow());
        started.elapsed()
    }

    pub(crate) async fn covered(&mut self, rooms: u64, within: u64) -> Duration {
        self.until("covered", within, |state| state.totals.covered == rooms && state.totals.pending == 0)
            .await
    }

    pub(crate) async fn stop(mut self) {
        self.end().await;
    }

    /// Ends it in order.
    pub(crate) async fn end(&mut self) {
        self.cancel.cancel();
        timeout(Duration::from_secs(20), &mut self.task).await.expect("the loop ends").unwrap();
    }
}

const KINDS: [RoomKind; 6] = [
    RoomKind::Public,
    RoomKind::Private,
    RoomKind::Encrypted,
    RoomKind::Space,
    RoomKind::Knock,
    RoomKind::Restricted,
];

pub(crate) fn rooms_of_all_kinds(homeserver: &MockHomeserver, creator: &UserId) -> Vec<RoomId> {
    let each = |version| KINDS.map(|kind| homeserver.create_room(creator, version, kind));
    ["10", "11", "12"].into_iter().flat_map(each).collect()
}

/// A direct chat as a client makes it: the other person was invited with `is_direct`, then joined.
pub(crate) fn direct_chat(homeserver: &MockHomeserver, creator: &UserId, other: &UserId) -> RoomId {
    let room = homeserver.create_room(creator, "11", RoomKind::Encrypted);
    let invite = json!({ "membership": "invite", "is_direct": true });
    homeserver.force_state(&room, creator, "m.room.member", other.as_str(), invite);
    homeserver.force_membership(&room, other, "join");
    room
}
