//! A homeserver during whose calls the operator dies, as the test says.

use std::sync::Arc;

use async_trait::async_trait;
use ems_bots::{
    domain::{DeviceId, Localpart, RoomId, ServerName, UserId},
    homeserver::{
        Account, Admin, Connect, Entry, Inspect, LoginFlow, NewAccount, Result, RoomList, RoomListing,
        Session, StateEvent, User,
    },
};
use secrecy::SecretString;
use serde_json::Value;

use super::fake_api::Crash;

pub(crate) struct Crashing {
    pub(crate) inner: Arc<dyn Connect>,
    pub(crate) crash: Crash,
}

struct CrashingEntry(Box<dyn Entry>, Crash);
struct CrashingAdmin(Box<dyn Admin>, Crash);
struct CrashingUser(Box<dyn User>, Crash);

impl Connect for Crashing {
    fn entry(&self) -> Box<dyn Entry> {
        Box::new(CrashingEntry(self.inner.entry(), self.crash.clone()))
    }

    fn admin(&self, session: Session) -> Box<dyn Admin> {
        Box::new(CrashingAdmin(self.inner.admin(session), self.crash.clone()))
    }

    fn inspect(&self, session: Session) -> Box<dyn Inspect> {
        self.inner.inspect(session)
    }

    fn user(&self, session: Session) -> Box<dyn User> {
        Box::new(CrashingUser(self.inner.user(session), self.crash.clone()))
    }
}

/// A call that changes something: afterwards the operator may die.
macro_rules! write {
    ($self:ident, $call:expr) => {{
        let answer = $call.await;
        if answer.is_ok() {
            $self.1.wrote().await;
        }
        answer
    }};
}

#[async_trait]
impl Entry for CrashingEntry {
    async fn server_name(&self) -> Result<Option<ServerName>> {
        self.0.server_name().await
    }
    async fn versions(&self) -> Result<Vec<String>> {
        self.0.versions().await
    }
    async fn login_flows(&self) -> Result<Vec<LoginFlow>> {
        self.0.login_flows().await
    }
    async fn register_admin(&self, s: &SecretString, l: &Localpart, p: &SecretString) -> Result<Session> {
        write!(self, self.0.register_admin(s, l, p))
    }
    async fn login(&self, l: &Localpart, p: &SecretString, d: &DeviceId) -> Result<Session> {
        write!(self, self.0.login(l, p, d))
    }
    async fn whoami(&self, token: &SecretString) -> Result<UserId> {
        self.0.whoami(token).await
    }
}

#[async_trait]
impl Admin for CrashingAdmin {
    fn user_id(&self) -> &UserId {
        self.0.user_id()
    }
    async fn server_version(&self) -> Result<String> {
        self.0.server_version().await
    }
    async fn account(&self, user: &UserId) -> Result<Option<Account>> {
        self.0.account(user).await
    }
    async fn create_account(&self, new: &NewAccount<'_>) -> Result<Account> {
        write!(self, self.0.create_account(new))
    }
    async fn set_display_name(&self, user: &UserId, name: &str) -> Result<()> {
        write!(self, self.0.set_display_name(user, name))
    }
    async fn set_avatar(&self, user: &UserId, png: &'static [u8]) -> Result<()> {
        write!(self, self.0.set_avatar(user, png))
    }
    async fn set_locked(&self, user: &UserId, locked: bool) -> Result<()> {
        write!(self, self.0.set_locked(user, locked))
    }
    async fn deactivate(&self, user: &UserId) -> Result<()> {
        write!(self, self.0.deactivate(user))
    }
    async fn reactivate(&self, user: &UserId, password: &SecretString) -> Result<()> {
        write!(self, self.0.reactivate(user, password))
    }
    async fn set_unlimited(&self, user: &UserId, unlimited: bool) -> Result<()> {
        write!(self, self.0.set_unlimited(user, unlimited))
    }
    async fn puppet(&self, user: &UserId) -> Result<Session> {
        write!(self, self.0.puppet(user))
    }
    async fn delete_device(&self, user: &UserId, device: &DeviceId) -> Result<()> {
        write!(self, self.0.delete_device(user, device))
    }
    async fn devices(&self, user: &UserId) -> Result<Vec<DeviceId>> {
        self.0.devices(user).await
    }
    async fn rooms(&self) -> Result<RoomList> {
        self.0.rooms().await
    }
    async fn smallest_rooms(&self, most: u64) -> Result<Vec<RoomListing>> {
        self.0.smallest_rooms(most).await
    }
    async fn inhabited_rooms(&self) -> Result<u64> {
        self.0.inhabited_rooms().await
    }
    async fn joined_rooms(&self, user: &UserId) -> Result<Vec<RoomId>> {
        self.0.joined_rooms(user).await
    }
    async fn room_state(&self, room: &RoomId, event_type: Option<&str>) -> Result<Vec<StateEvent>> {
        self.0.room_state(room, event_type).await
    }
    async fn make_room_admin(&self, room: &RoomId, user: &UserId) -> Result<()> {
        write!(self, self.0.make_room_admin(room, user))
    }
    async fn last_activity(&self, room: &RoomId) -> Result<Option<i64>> {
        self.0.last_activity(room).await
    }
    async fn newest_events(
        &self,
        room: &RoomId,
        types: &[&str],
        sender: Option<&UserId>,
    ) -> Result<Vec<Value>> {
        self.0.newest_events(room, types, sender).await
    }
    async fn fetch_event(&self, event_id: &str) -> Result<Option<Value>> {
        self.0.fetch_event(event_id).await
    }
}

#[async_trait]
impl User for CrashingUser {
    async fn join(&self, room: &RoomId, via: &[String]) -> Result<()> {
        write!(self, self.0.join(room, via))
    }
    async fn unban(&self, room: &RoomId, user: &UserId) -> Result<()> {
        write!(self, self.0.unban(room, user))
    }
    async fn leave(&self, room: &RoomId) -> Result<()> {
        write!(self, self.0.leave(room))
    }
    async fn invite(&self, room: &RoomId, user: &UserId) -> Result<()> {
        write!(self, self.0.invite(room, user))
    }
    async fn put_state(&self, room: &RoomId, t: &str, key: &str, content: &Value) -> Result<()> {
        write!(self, self.0.put_state(room, t, key, content))
    }
    async fn send(&self, room: &RoomId, t: &str, id: &str, content: &Value) -> Result<()> {
        write!(self, self.0.send(room, t, id, content))
    }
    async fn logout(&self) -> Result<()> {
        write!(self, self.0.logout())
    }
}
