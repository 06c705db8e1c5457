//! A homeserver in memory, for tests of everything that talks to one.
//!
//! It behaves as Synapse was measured to, traps included: `make_room_admin` on a room without power
//! levels destroys it, and on a banned user it writes power before it fails. Calls are logged, can
//! be slowed down, made to fail, or lose their answer after they took effect.

mod access;
mod faults;
mod inspect;
mod room;
mod user;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::{Value, json};

use self::faults::Faults;
pub use self::{
    faults::{Outcome, Recorded},
    inspect::Inspection,
    room::{MockRoom, RoomKind},
};
use super::{Account, Admin, Connect, Entry, HomeserverError, Inspect, Session, User};
use crate::domain::{Localpart, RoomId, ServerName, UserId};

/// An account of the mock.
#[derive(Debug, Clone)]
pub struct MockUser {
    /// What the admin API shows.
    pub account: Account,
    /// Password in clear.
    pub password: String,
    /// Devices.
    pub devices: Vec<String>,
    /// Has `override_ratelimit` 0/0.
    pub unlimited: bool,
}

#[derive(Debug, Clone)]
struct Token {
    user: UserId,
    /// The admin that made it, for a puppet token.
    owner: UserId,
}

/// What the list of rooms says of how many are in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberCounts {
    /// What is so.
    Known,
    /// Nobody: what is so is found out later.
    Late,
}

/// Everything the mock knows; tests may look and change.
#[derive(Debug)]
pub struct World {
    /// Its name.
    pub server_name: ServerName,
    /// Registration shared secret, if that is switched on.
    pub shared_secret: Option<String>,
    /// Password login is possible.
    pub password_login: bool,
    /// Apply Synapse's default limits to accounts that are not unlimited.
    pub rate_limits: bool,
    /// The admin API answers.
    pub admin_api: bool,
    /// Accounts by user id.
    pub users: BTreeMap<String, MockUser>,
    /// Rooms.
    pub rooms: BTreeMap<RoomId, MockRoom>,
    /// What its list knows.
    pub member_counts: MemberCounts,
    /// Rooms that its listing leaves out.
    pub unlisted: BTreeSet<RoomId>,
    /// What it shows to who only looks.
    pub inspection: Inspection,
    tokens: BTreeMap<String, Token>,
    invites_of: BTreeMap<String, u32>,
    joins_of: BTreeMap<String, u32>,
    next_id: u64,
}

/// A homeserver in memory. Clones share it.
#[derive(Debug, Clone)]
pub struct MockHomeserver {
    world: Arc<Mutex<World>>,
    faults: Arc<Mutex<Faults>>,
}

impl MockHomeserver {
    /// An empty homeserver without limits, with the shared secret `registration-secret`.
    pub fn new(server_name: ServerName) -> Self {
        let world = World {
            server_name,
            shared_secret: Some("registration-secret".to_owned()),
            password_login: true,
            rate_limits: false,
            admin_api: true,
            users: BTreeMap::new(),
            rooms: BTreeMap::new(),
            member_counts: MemberCounts::Known,
            unlisted: BTreeSet::new(),
            inspection: Inspection::default(),
            tokens: BTreeMap::new(),
            invites_of: BTreeMap::new(),
            joins_of: BTreeMap::new(),
            next_id: 0,
        };
        Self { world: Arc::new(Mutex::new(world)), faults: Arc::default() }
    }

    /// Looks at or changes the world; do not keep it over an await.
    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes an account with the password `password` and returns its session.
    pub fn add_user(&self, localpart: &Localpart, admin: bool) -> Session {
        let mut world = self.world();
        let user = UserId::from_parts(localpart, &world.server_name);
        world.insert_user(&user, "password", admin, None, None);
        world.open_session(&user, &user)
    }

    /// Makes a room of a kind, with its creator joined and powerful, as a finished `createRoom`.
    pub fn create_room(&self, creator: &UserId, version: &str, kind: RoomKind) -> RoomId {
        let room = self.begin_room(creator, version, kind);
        self.finish_room(&room);
        room
    }

    /// The first moments of `createRoom`: create event and the creator's membership only.
    pub fn begin_room(&self, creator: &UserId, version: &str, kind: RoomKind) -> RoomId {
        let mut world = self.world();
        let id = world.fresh_id();
        let text = if MockRoom::creator_power_version(version) {
            format!("!mock{id}")
        } else {
            format!("!mock{id}:{}", world.server_name)
        };
        let server = world.server_name.clone();
        let made = MockRoom::begin(id, creator, &server, version, kind);
        let Ok(room) = RoomId::parse(text) else { unreachable!("a sigil and digits") };
        world.rooms.insert(room.clone(), made);
        room
    }

    /// The rest of `createRoom`.
    pub fn finish_room(&self, room: &RoomId) {
        if let Some(room) = self.world().rooms.get_mut(room) {
            room.finish();
        }
    }

    /// Puts a user into a room as joined, whoever it is.
    pub fn force_membership(&self, room: &RoomId, user: &UserId, membership: &str) {
        if let Some(room) = self.world().rooms.get_mut(room) {
            room.set_state(
                "m.room.member",
                user.as_str(),
                user.as_str(),
                json!({ "membership": membership }),
            );
        }
    }

    /// Writes a state event without asking for power.
    pub fn force_state(&self, room: &RoomId, sender: &UserId, event_type: &str, key: &str, content: Value) {
        if let Some(room) = self.world().rooms.get_mut(room) {
            room.set_state(event_type, key, sender.as_str(), content);
        }
    }

    /// The content of a state event.
    pub fn state(&self, room: &RoomId, event_type: &str, key: &str) -> Option<Value> {
        self.world().rooms.get(room)?.state_content(event_type, key).cloned()
    }

    /// The membership of a user, `none` if it has none.
    pub fn membership(&self, room: &RoomId, user: &UserId) -> String {
        self.world().rooms.get(room).map_or("none", |room| room.membership(user.as_str())).to_owned()
    }

    /// The power of a user.
    pub fn power(&self, room: &RoomId, user: &UserId) -> i64 {
        self.world().rooms.get(room).map_or(0, |room| room.power(user.as_str()))
    }

    /// Everything that was asked, in order.
    pub fn calls(&self) -> Vec<Recorded> {
        self.faults().log.clone()
    }

    /// How often a call (the method's name) was made.
    pub fn count(&self, call: &str) -> usize {
        self.faults().log.iter().filter(|recorded| recorded.call == call).count()
    }

    /// Makes the `nth` call from now (from 1) of this name fail with an error before it has an effect.
    pub fn fail(
        &self,
        call: &'static str,
        nth: u32,
        error: impl Fn() -> HomeserverError + Send + Sync + 'static,
    ) {
        self.faults().plan(call, Some(nth), Outcome::Fail(Arc::new(error)));
    }

    /// Makes every call of this name fail until [`Self::heal`].
    pub fn fail_always(
        &self,
        call: &'static str,
        error: impl Fn() -> HomeserverError + Send + Sync + 'static,
    ) {
        self.faults().plan(call, None, Outcome::Fail(Arc::new(error)));
    }

    /// Makes the `nth` call from now (from 1) of this name take effect and lose its answer: what
    /// the caller sees when it or the homeserver dies in between.
    pub fn lose_answer(&self, call: &'static str, nth: u32) {
        self.faults().plan(call, Some(nth), Outcome::LoseAnswer);
    }

    /// Takes every planned failure back.
    pub fn heal(&self) {
        self.faults().clear();
    }

    /// Every call takes this long (tokio time).
    pub fn set_latency(&self, latency: Duration) {
        self.faults().latency = latency;
    }

    /// The answer to this call is on its way for so long: it says what was so before (tokio time).
    pub fn delay_answers(&self, call: &'static str, delay: Duration) {
        self.faults().delays.insert(call, delay);
    }
}

impl Connect for MockHomeserver {
    fn entry(&self) -> Box<dyn Entry> {
        Box::new(access::MockEntry(self.clone()))
    }

    fn admin(&self, session: Session) -> Box<dyn Admin> {
        Box::new(access::MockAdmin { server: self.clone(), session })
    }

    fn inspect(&self, session: Session) -> Box<dyn Inspect> {
        Box::new(inspect::MockInspect { server: self.clone(), session })
    }

    fn user(&self, session: Session) -> Box<dyn User> {
        Box::new(user::MockUserAccess { server: self.clone(), session })
    }
}

impl World {
    fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn insert_user(
        &mut self,
        user: &UserId,
        password: &str,
        admin: bool,
        ownership: Option<String>,
        display_name: Option<String>,
    ) -> Account {
        let account = Account {
            user_id: user.clone(),
            admin,
            deactivated: false,
            locked: false,
            user_type: ownership.as_ref().map(|_| "bot".to_owned()),
            appservice: None,
            restriction: None,
            display_name,
            avatar_url: None,
            ownership,
        };
        let made = MockUser {
            account: account.clone(),
            password: password.to_owned(),
            devices: Vec::new(),
            unlimited: false,
        };
        self.users.insert(user.to_string(), made);
        account
    }

    fn open_session(&mut self, user: &UserId, owner: &UserId) -> Session {
        let token = format!("token-{}", self.fresh_id());
        self.tokens.insert(token.clone(), Token { user: user.clone(), owner: owner.clone() });
        Session { user_id: user.clone(), device_id: None, access_token: token.into() }
    }

    /// Ends every session of a user and every puppet token that it made.
    pub fn revoke_tokens(&mut self, user: &UserId) {
        self.tokens.retain(|_, token| token.owner != *user);
    }

    /// Ends every puppet token of a user.
    pub fn revoke_puppets(&mut self, user: &UserId) {
        self.tokens.retain(|_, token| token.user != *user || token.owner == token.user);
    }

    /// Number of sessions and puppet tokens that act as a user.
    pub fn sessions_of(&self, user: &UserId) -> usize {
        self.tokens.values().filter(|token| token.user == *user).count()
    }
}
