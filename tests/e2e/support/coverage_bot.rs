//! The coverage loop of one bot in the test's own process, against a real Synapse, and what it told its log.

use std::{
    collections::BTreeMap,
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
    domain::{Localpart, RoomId, ServerName, SystemClock, UserId, room::RoomNote},
    homeserver::{
        Admin, Connect, NewAccount, Session,
        synapse::{Connection, Settings},
    },
};
use secrecy::SecretString;
use serde_json::Value;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{Synapse, unique};

#[derive(Default)]
pub struct Log {
    pub acts: Mutex<Vec<(Act, Option<ActOutcome>)>>,
    recalled: Mutex<BTreeMap<String, String>>,
    rooms: Mutex<BTreeMap<RoomId, RoomNote>>,
    is_closed: Mutex<bool>,
}

#[async_trait]
impl ActLog for Log {
    async fn intend(&self, act: &Act) -> Result<(), ActLogError> {
        self.acts.lock().unwrap().push((act.clone(), None));
        if let (StepKind::Recall | StepKind::Return, Some(person)) = (act.kind, &act.person) {
            self.recalled.lock().unwrap().insert(act.room_id.to_string(), person.clone());
        }
        Ok(())
    }

    async fn outcome(&self, act: &Act, outcome: &ActOutcome) -> Result<(), ActLogError> {
        let mut acts = self.acts.lock().unwrap();
        acts.iter_mut().find(|(known, _)| known.id == act.id).unwrap().1 = Some(outcome.clone());
        Ok(())
    }

    fn recalled(&self, room: &RoomId) -> Option<String> {
        self.recalled.lock().unwrap().get(room.as_str()).cloned()
    }

    async fn forget_recalled(&self, room: &RoomId) -> Result<(), ActLogError> {
        self.recalled.lock().unwrap().remove(room.as_str());
        Ok(())
    }
}

#[async_trait]
impl RoomBook for Log {
    async fn open(&self) -> Result<(Vec<RoomNote>, bool), BookError> {
        let rooms = self.rooms.lock().unwrap().values().cloned().collect();
        Ok((rooms, std::mem::take(&mut *self.is_closed.lock().unwrap())))
    }

    async fn close(&self) -> Result<(), BookError> {
        *self.is_closed.lock().unwrap() = true;
        Ok(())
    }

    async fn write(&self, notes: &[RoomNote], gone: &[RoomId]) -> Result<(), BookError> {
        let mut rooms = self.rooms.lock().unwrap();
        rooms.extend(notes.iter().map(|note| (note.room_id.clone(), note.clone())));
        rooms.retain(|room, _| !gone.contains(room));
        Ok(())
    }
}

pub struct Bot {
    pub user: UserId,
    pub admin: Box<dyn Admin>,
    pub log: Arc<Log>,
    pub hints: mpsc::UnboundedSender<Hint>,
    state: watch::Receiver<CoverageState>,
    pub control: watch::Sender<Control>,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

pub fn connection(synapse: &Synapse) -> Connection {
    Connection::new(&Settings::new(synapse.host_url.parse().unwrap())).unwrap()
}

pub fn secret() -> SecretString {
    SecretString::from(format!("pw-{}", unique("secret")))
}

pub async fn register_admin(synapse: &Synapse, name: &str) -> Session {
    let shared = SecretString::from(synapse.registration_shared_secret.clone());
    let localpart = Localpart::parse(name).unwrap();
    connection(synapse).entry().register_admin(&shared, &localpart, &secret()).await.unwrap()
}

/// Makes the accounts as the operator does and starts the loop.
pub async fn start(synapse: &Synapse, name: &str) -> Bot {
    start_with(synapse, name, Control::default()).await
}

pub async fn start_with(synapse: &Synapse, name: &str, control: Control) -> Bot {
    let (session, user) = accounts(synapse, name).await;
    run(synapse, session, user, control)
}

/// The worker's session and the bot, made as the operator does.
pub async fn accounts(synapse: &Synapse, name: &str) -> (Session, UserId) {
    let session = register_admin(synapse, &format!("{name}-admin-01234567")).await;
    let admin = connection(synapse).admin(session.clone());
    admin.set_unlimited(&session.user_id, true).await.unwrap();
    let new = NewAccount {
        localpart: &Localpart::parse(name).unwrap(),
        password: &secret(),
        admin: false,
        display_name: name,
        ownership: &format!("mark-{name}"),
    };
    let user = admin.create_account(&new).await.unwrap().user_id;
    (session, user)
}

/// Starts the loop.
pub fn run(synapse: &Synapse, session: Session, user: UserId, control: Control) -> Bot {
    run_with(synapse, session, user, control, Arc::default())
}

/// Starts the loop where an earlier one has kept this log.
pub fn run_with(synapse: &Synapse, session: Session, user: UserId, control: Control, log: Arc<Log>) -> Bot {
    let connection = connection(synapse);
    let admin = connection.admin(session.clone());
    let identity = Identity { bot: user.clone(), server: ServerName::parse(&*synapse.server_name).unwrap() };
    let settings = RunnerSettings::default();
    let (connect, clock) = (Arc::new(connection), Arc::new(SystemClock));
    let runner = Runner::new(connect, session, identity, log.clone(), log.clone(), clock, settings);
    let (hints, hinted) = mpsc::unbounded_channel();
    let (control, wishes) = watch::channel(control);
    let (reports, state) = watch::channel(CoverageState::default());
    let cancel = CancellationToken::new();
    let task = tokio::spawn(runner.run(wishes, hinted, reports, cancel.clone()));
    Bot { user, admin, log, hints, state, control, cancel, task }
}

impl Bot {
    pub async fn until(&mut self, what: &str, within: u64, is_so: impl Fn(&CoverageState) -> bool) {
        let met = timeout(Duration::from_secs(within), self.state.wait_for(|state| is_so(state))).await;
        let in_time = met.is_ok();
        drop(met);
        assert!(in_time, "{what}: not within {within} s; state is {:?}", self.state.borrow());
    }

    pub async fn covered(&mut self, rooms: usize, within: u64) {
        let all = |state: &CoverageState| state.totals.covered == rooms as u64 && state.totals.pending == 0;
        self.until("covered", within, all).await;
    }

    /// The room's state by type and key.
    pub async fn room(&self, room: &str) -> BTreeMap<(String, String), Value> {
        let state = self.admin.room_state(&RoomId::parse(room).unwrap(), None).await.unwrap();
        state.into_iter().map(|event| ((event.event_type, event.state_key), event.content)).collect()
    }

    pub async fn stop(self) {
        self.cancel.cancel();
        timeout(Duration::from_secs(30), self.task).await.expect("the loop ends").unwrap();
    }
}
