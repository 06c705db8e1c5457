//! The port's traits over the world in memory.

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use super::{MemberCounts, MockHomeserver, Outcome, Token, World};
use crate::{
    domain::{DeviceId, Localpart, RoomId, ServerName, UserId},
    homeserver::{
        Account, Admin, Entry, HomeserverError, LoginFlow, NewAccount, Result, RoomList, RoomListing,
        Session, StateEvent,
    },
};

pub(super) struct MockEntry(pub(super) MockHomeserver);

pub(super) struct MockAdmin {
    pub(super) server: MockHomeserver,
    pub(super) session: Session,
}

impl MockHomeserver {
    /// Logs the call, waits, fails as planned, or lets `act` change the world.
    pub(super) async fn perform<T: Send>(
        &self,
        call: &'static str,
        subject: &str,
        caller: &str,
        act: impl FnOnce(&mut World) -> Result<T> + Send,
    ) -> Result<T> {
        let (outcome, latency, delay) = {
            let mut faults = self.faults();
            (faults.enter(call, subject, caller), faults.latency, faults.delays.get(call).copied())
        };
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        let answer = match outcome {
            Outcome::Succeed => act(&mut self.world()),
            Outcome::Fail(error) => Err(error()),
            Outcome::LoseAnswer => {
                // Whatever the act said is what the caller does not hear.
                let _ = act(&mut self.world());
                Err(HomeserverError::Unreachable {
                    host: "mock".to_owned(),
                    problem: "the answer broke off".to_owned(),
                })
            }
        };
        if let Some(delay) = delay {
            tokio::time::sleep(delay).await;
        }
        answer
    }
}

pub(super) fn refused(what: &'static str, status: u16, errcode: &str, message: &str) -> HomeserverError {
    HomeserverError::Refused { what, status, errcode: errcode.to_owned(), message: message.to_owned() }
}

impl World {
    /// What its list says.
    fn listings(&self) -> Vec<RoomListing> {
        let listed = self.rooms.iter().filter(|(id, _)| !self.unlisted.contains(*id));
        let mut rooms: Vec<_> = listed.map(|(id, room)| room.listing(id)).collect();
        if self.member_counts == MemberCounts::Late {
            for room in &mut rooms {
                (room.joined_members, room.joined_local_members) = (0, 0);
            }
        }
        rooms
    }

    pub(super) fn token(&self, session: &Session, what: &'static str) -> Result<&Token> {
        let token = self
            .tokens
            .get(session.access_token.expose_secret())
            .ok_or(HomeserverError::CredentialRefused { what })?;
        match self.users.get(token.owner.as_str()) {
            Some(owner) if owner.account.locked => {
                Err(HomeserverError::Locked { user: token.owner.to_string() })
            }
            Some(owner) if !owner.account.deactivated => Ok(token),
            _ => Err(HomeserverError::CredentialRefused { what }),
        }
    }

    pub(super) fn require_admin(&self, session: &Session, what: &'static str) -> Result<()> {
        if !self.admin_api {
            return Err(HomeserverError::NotOffered { what });
        }
        let token = self.token(session, what)?;
        let is_admin = self.users.get(token.user.as_str()).is_some_and(|user| user.account.admin);
        if is_admin { Ok(()) } else { Err(HomeserverError::NotAdmin) }
    }

    pub(super) fn is_unlimited(&self, session: &Session, what: &'static str) -> Result<bool> {
        let owner = self.token(session, what)?.owner.clone();
        Ok(!self.rate_limits || self.users.get(owner.as_str()).is_some_and(|user| user.unlimited))
    }

    fn user_mut(&mut self, user: &UserId) -> Result<&mut super::MockUser> {
        self.users.get_mut(user.as_str()).ok_or_else(|| HomeserverError::NotFound { what: user.to_string() })
    }

    pub(super) fn room_mut(&mut self, room: &RoomId) -> Result<&mut super::MockRoom> {
        self.rooms.get_mut(room).ok_or_else(|| HomeserverError::NotFound { what: room.to_string() })
    }

    fn check_password(&self, user: &UserId, password: &SecretString) -> Result<()> {
        let refused = || HomeserverError::PasswordRefused { user: user.to_string() };
        let known = self.users.get(user.as_str()).ok_or_else(refused)?;
        if known.account.locked {
            return Err(HomeserverError::Locked { user: user.to_string() });
        }
        if known.account.deactivated || known.password != password.expose_secret() {
            return Err(refused());
        }
        Ok(())
    }
}

#[async_trait]
impl Entry for MockEntry {
    async fn server_name(&self) -> Result<Option<ServerName>> {
        self.0.perform("server_name", "", "", |world| Ok(Some(world.server_name.clone()))).await
    }

    async fn versions(&self) -> Result<Vec<String>> {
        self.0.perform("versions", "", "", |_| Ok(vec!["v1.12".to_owned()])).await
    }

    async fn login_flows(&self) -> Result<Vec<LoginFlow>> {
        let flow = |world: &mut World| {
            let password = LoginFlow { kind: "m.login.password".to_owned(), get_login_token: false };
            Ok(world.password_login.then_some(password).into_iter().collect())
        };
        self.0.perform("login_flows", "", "", flow).await
    }

    async fn register_admin(
        &self,
        secret: &SecretString,
        localpart: &Localpart,
        password: &SecretString,
    ) -> Result<Session> {
        let act = |world: &mut World| {
            match &world.shared_secret {
                None => return Err(HomeserverError::NotOffered { what: "registration" }),
                Some(known) if known != secret.expose_secret() => {
                    return Err(HomeserverError::SharedSecretRefused);
                }
                Some(_) => {}
            }
            let user = UserId::from_parts(localpart, &world.server_name);
            if localpart.as_str().starts_with('_') {
                let message = "User ID may not begin with _";
                return Err(refused("registration", 400, "M_INVALID_USERNAME", message));
            }
            if world.users.contains_key(user.as_str()) {
                return Err(HomeserverError::UserInUse { user: user.to_string() });
            }
            world.insert_user(&user, password.expose_secret(), true, None, None);
            Ok(world.open_session(&user, &user))
        };
        self.0.perform("register_admin", localpart.as_str(), "", act).await
    }

    async fn login(
        &self,
        localpart: &Localpart,
        password: &SecretString,
        device: &DeviceId,
    ) -> Result<Session> {
        let act = |world: &mut World| {
            if !world.password_login {
                return Err(HomeserverError::PasswordLoginDisabled);
            }
            let user = UserId::from_parts(localpart, &world.server_name);
            world.check_password(&user, password)?;
            let known = world.user_mut(&user)?;
            if !known.devices.iter().any(|have| have == device.as_str()) {
                known.devices.push(device.to_string());
            }
            let mut session = world.open_session(&user, &user);
            session.device_id = Some(device.clone());
            Ok(session)
        };
        self.0.perform("login", localpart.as_str(), "", act).await
    }

    async fn whoami(&self, token: &SecretString) -> Result<UserId> {
        let act = |world: &mut World| {
            let refused = HomeserverError::CredentialRefused { what: "whoami" };
            world.tokens.get(token.expose_secret()).map(|known| known.user.clone()).ok_or(refused)
        };
        self.0.perform("whoami", "", "", act).await
    }
}

impl MockAdmin {
    async fn act<T: Send>(
        &self,
        call: &'static str,
        subject: &str,
        act: impl FnOnce(&mut World) -> Result<T> + Send,
    ) -> Result<T> {
        let checked = |world: &mut World| {
            world.require_admin(&self.session, call)?;
            act(world)
        };
        self.server.perform(call, subject, self.session.user_id.as_str(), checked).await
    }
}

#[async_trait]
impl Admin for MockAdmin {
    fn user_id(&self) -> &UserId {
        &self.session.user_id
    }

    async fn server_version(&self) -> Result<String> {
        self.act("server_version", "", |_| Ok("mock".to_owned())).await
    }

    async fn account(&self, user: &UserId) -> Result<Option<Account>> {
        let act = |world: &mut World| Ok(world.users.get(user.as_str()).map(|known| known.account.clone()));
        self.act("account", user.as_str(), act).await
    }

    async fn create_account(&self, new: &NewAccount<'_>) -> Result<Account> {
        let act = |world: &mut World| {
            let user = UserId::from_parts(new.localpart, &world.server_name);
            if world.users.contains_key(user.as_str()) {
                return Err(HomeserverError::UserInUse { user: user.to_string() });
            }
            let taken = |known: &super::MockUser| known.account.ownership.as_deref() == Some(new.ownership);
            if world.users.values().any(taken) {
                return Err(refused(
                    "creation of an account",
                    409,
                    "M_UNKNOWN",
                    "External id is already in use.",
                ));
            }
            let password = new.password.expose_secret();
            let name = Some(new.display_name.to_owned());
            Ok(world.insert_user(&user, password, new.admin, Some(new.ownership.to_owned()), name))
        };
        self.act("create_account", new.localpart.as_str(), act).await
    }

    async fn set_display_name(&self, user: &UserId, name: &str) -> Result<()> {
        let act = |world: &mut World| {
            world.user_mut(user)?.account.display_name = Some(name.to_owned());
            Ok(())
        };
        self.act("set_display_name", user.as_str(), act).await
    }

    async fn set_avatar(&self, user: &UserId, _png: &'static [u8]) -> Result<()> {
        let act = |world: &mut World| {
            world.user_mut(user)?.account.avatar_url = Some("mxc://example.org/avatar".to_owned());
            Ok(())
        };
        self.act("set_avatar", user.as_str(), act).await
    }

    async fn set_locked(&self, user: &UserId, locked: bool) -> Result<()> {
        let act = |world: &mut World| {
            world.user_mut(user)?.account.locked = locked;
            Ok(())
        };
        self.act("set_locked", user.as_str(), act).await
    }

    async fn deactivate(&self, user: &UserId) -> Result<()> {
        let act = |world: &mut World| {
            let known = world.user_mut(user)?;
            known.account.deactivated = true;
            known.devices.clear();
            world.revoke_tokens(user);
            for room in world.rooms.values_mut() {
                if room.membership(user.as_str()) == "join" {
                    room.set_state(
                        "m.room.member",
                        user.as_str(),
                        user.as_str(),
                        json!({ "membership": "leave" }),
                    );
                }
            }
            Ok(())
        };
        self.act("deactivate", user.as_str(), act).await
    }

    async fn reactivate(&self, user: &UserId, password: &SecretString) -> Result<()> {
        let act = |world: &mut World| {
            let known = world.user_mut(user)?;
            known.account.deactivated = false;
            password.expose_secret().clone_into(&mut known.password);
            Ok(())
        };
        self.act("reactivate", user.as_str(), act).await
    }

    async fn set_unlimited(&self, user: &UserId, unlimited: bool) -> Result<()> {
        let act = |world: &mut World| {
            world.user_mut(user)?.unlimited = unlimited;
            Ok(())
        };
        self.act("set_unlimited", user.as_str(), act).await
    }

    async fn puppet(&self, user: &UserId) -> Result<Session> {
        let act = |world: &mut World| {
            if *user == self.session.user_id {
                return Err(refused("puppet", 400, "M_UNKNOWN", "Cannot use admin API to login as self"));
            }
            world.user_mut(user)?;
            Ok(world.open_session(user, &self.session.user_id))
        };
        self.act("puppet", user.as_str(), act).await
    }

    async fn delete_device(&self, user: &UserId, device: &DeviceId) -> Result<()> {
        let act = |world: &mut World| {
            world.user_mut(user)?.devices.retain(|have| have != device.as_str());
            Ok(())
        };
        self.act("delete_device", user.as_str(), act).await
    }

    async fn devices(&self, user: &UserId) -> Result<Vec<DeviceId>> {
        let act = |world: &mut World| {
            let devices = world.user_mut(user)?.devices.clone();
            Ok(devices.into_iter().filter_map(|device| DeviceId::parse(device).ok()).collect())
        };
        self.act("devices", user.as_str(), act).await
    }

    async fn rooms(&self) -> Result<RoomList> {
        let act = |world: &mut World| {
            let rooms = world.listings();
            let inhabited = rooms.iter().filter(|room| !room.is_empty()).count() as u64;
            Ok(RoomList { rooms, inhabited })
        };
        self.act("rooms", "", act).await
    }

    async fn smallest_rooms(&self, most: u64) -> Result<Vec<RoomListing>> {
        let act = |world: &mut World| {
            let mut rooms = world.listings();
            rooms.retain(|room| !room.is_empty());
            rooms.sort_by_key(|room| room.joined_members);
            rooms.truncate(usize::try_from(most).unwrap_or(usize::MAX));
            Ok(rooms)
        };
        self.act("smallest_rooms", "", act).await
    }

    async fn inhabited_rooms(&self) -> Result<u64> {
        let act = |world: &mut World| {
            let is_known = world.member_counts == MemberCounts::Known;
            let inhabited = world.rooms.values().filter(|room| is_known && !room.is_empty());
            Ok(inhabited.count() as u64)
        };
        self.act("inhabited_rooms", "", act).await
    }

    async fn joined_rooms(&self, user: &UserId) -> Result<Vec<RoomId>> {
        let act = |world: &mut World| {
            let joined = world.rooms.iter().filter(|(_, room)| room.membership(user.as_str()) == "join");
            Ok(joined.map(|(id, _)| id.clone()).collect())
        };
        self.act("joined_rooms", user.as_str(), act).await
    }

    async fn room_state(&self, room: &RoomId, event_type: Option<&str>) -> Result<Vec<StateEvent>> {
        let act = |world: &mut World| Ok(world.room_mut(room)?.state(event_type));
        self.act("room_state", room.as_str(), act).await
    }

    async fn make_room_admin(&self, room: &RoomId, user: &UserId) -> Result<()> {
        let act = |world: &mut World| {
            let unlimited = world.is_unlimited(&self.session, "make_room_admin")?;
            let invited = world.invites_of.entry(user.to_string()).or_default();
            *invited += 1;
            let may_invite = unlimited || *invited <= 5;
            world.room_mut(room)?.make_admin(user.as_str(), may_invite)
        };
        self.act("make_room_admin", room.as_str(), act).await
    }

    async fn last_activity(&self, room: &RoomId) -> Result<Option<i64>> {
        self.act("last_activity", room.as_str(), |world| Ok(world.room_mut(room)?.last_activity)).await
    }

    async fn newest_events(
        &self,
        room: &RoomId,
        types: &[&str],
        sender: Option<&UserId>,
    ) -> Result<Vec<Value>> {
        let act = |world: &mut World| Ok(world.room_mut(room)?.newest_events(types, sender));
        self.act("newest_events", room.as_str(), act).await
    }

    async fn fetch_event(&self, event_id: &str) -> Result<Option<Value>> {
        let act =
            |world: &mut World| Ok(world.rooms.values().find_map(|room| room.events.get(event_id)).cloned());
        self.act("fetch_event", event_id, act).await
    }
}
