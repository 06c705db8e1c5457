//! What a server admin's token can do.

use std::sync::Arc;

use async_trait::async_trait;
use reqwest::Method;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    answer::Answer,
    http::{Call, Http},
    rooms,
};
use crate::{
    domain::{DeviceId, RoomId, UserId},
    homeserver::{
        Account, Admin, HomeserverError, NewAccount, OWNERSHIP_PROVIDER, Result, RoomList, RoomListing,
        Session, StateEvent,
    },
};

const USERS_V1: &str = "_synapse/admin/v1/users";
const USERS_V2: &str = "_synapse/admin/v2/users";
pub(super) const ROOMS: &str = "_synapse/admin/v1/rooms";

/// Puppet tokens of a process that was killed do not stay valid for ever.
const PUPPET_LIFETIME_MS: i64 = 24 * 3_600_000;

pub(super) struct SynapseAdmin {
    pub http: Arc<Http>,
    pub session: Session,
}

#[derive(Deserialize)]
struct ExternalId {
    auth_provider: String,
    external_id: String,
}

#[expect(clippy::struct_excessive_bools, reason = "as the homeserver answers")]
#[derive(Deserialize)]
struct AccountAnswer {
    name: UserId,
    #[serde(default)]
    admin: bool,
    #[serde(default)]
    deactivated: bool,
    #[serde(default)]
    locked: bool,
    user_type: Option<String>,
    appservice_id: Option<String>,
    #[serde(default)]
    is_guest: bool,
    #[serde(default)]
    suspended: bool,
    #[serde(default)]
    shadow_banned: bool,
    displayname: Option<String>,
    avatar_url: Option<String>,
    #[serde(default)]
    external_ids: Vec<ExternalId>,
}

impl From<AccountAnswer> for Account {
    fn from(answer: AccountAnswer) -> Self {
        let ours = |id: &ExternalId| id.auth_provider == OWNERSHIP_PROVIDER;
        let restrictions = [
            (answer.is_guest, "guest"),
            (answer.suspended, "suspended"),
            (answer.shadow_banned, "shadow_banned"),
        ];
        Self {
            user_id: answer.name,
            admin: answer.admin,
            deactivated: answer.deactivated,
            locked: answer.locked,
            user_type: answer.user_type,
            appservice: answer.appservice_id,
            restriction: restrictions.into_iter().find(|(is_so, _)| *is_so).map(|(_, what)| what),
            display_name: answer.displayname,
            avatar_url: answer.avatar_url.filter(|url| !url.is_empty()),
            ownership: answer.external_ids.into_iter().find(ours).map(|id| id.external_id),
        }
    }
}

#[derive(Deserialize)]
struct StateRow {
    event_id: String,
    r#type: String,
    state_key: String,
    sender: String,
    content: Value,
    #[serde(default)]
    unsigned: Unsigned,
}

#[derive(Deserialize, Default)]
struct Unsigned {
    replaces_state: Option<String>,
}

impl From<StateRow> for StateEvent {
    fn from(row: StateRow) -> Self {
        Self {
            event_id: row.event_id,
            replaces: row.unsigned.replaces_state,
            event_type: row.r#type,
            state_key: row.state_key,
            sender: row.sender,
            content: row.content,
        }
    }
}

impl SynapseAdmin {
    pub(super) async fn ask(&self, call: Call<'_>) -> Result<Answer> {
        self.http.send(call.token(&self.session.access_token)).await
    }

    async fn put_user(&self, what: &'static str, user: &UserId, body: Value) -> Result<Answer> {
        let call = Call::new(Method::PUT, what, USERS_V2, &[user.as_str()]);
        self.ask(call.about(user.as_str()).slow().body(body)).await
    }
}

/// `None` for what does not exist.
pub(super) fn found<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(HomeserverError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The rows that can be read: one that a remote server made absurd must not hide the others.
pub(super) fn readable<T: for<'de> Deserialize<'de>>(rows: Vec<Value>) -> impl Iterator<Item = T> {
    rows.into_iter().filter_map(|row| serde_json::from_value(row).ok())
}

#[async_trait]
impl Admin for SynapseAdmin {
    fn user_id(&self) -> &UserId {
        &self.session.user_id
    }

    async fn server_version(&self) -> Result<String> {
        #[derive(Deserialize)]
        struct Version {
            server_version: String,
        }
        let call = Call::new(Method::GET, "the admin API", "_synapse/admin/v1/server_version", &[]);
        let version = self.ask(call).await?.parse::<Version>()?.server_version;
        // Synapse tells its version to anybody, so something has to be asked that only admins may.
        self.account(&self.session.user_id).await?;
        Ok(version)
    }

    async fn account(&self, user: &UserId) -> Result<Option<Account>> {
        let call = Call::new(Method::GET, "an account", USERS_V2, &[user.as_str()]).about(user.as_str());
        match found(self.ask(call).await)? {
            Some(answer) => Ok(Some(answer.parse::<AccountAnswer>()?.into())),
            None => Ok(None),
        }
    }

    async fn create_account(&self, new: &NewAccount<'_>) -> Result<Account> {
        let user = format!("@{}:{}", new.localpart, self.session.user_id.server_name());
        let body = json!({
            "password": new.password.expose_secret(),
            "admin": new.admin,
            "displayname": new.display_name,
            "user_type": "bot",
            "external_ids": [{ "auth_provider": OWNERSHIP_PROVIDER, "external_id": new.ownership }],
        });
        let call = Call::new(Method::PUT, "creation of an account", USERS_V2, &[&user])
            .about(user.clone())
            .hiding(new.password)
            .body(body);
        let answer = self.ask(call).await?;
        if answer.status == 201 {
            return Ok(answer.parse::<AccountAnswer>()?.into());
        }
        // There is no request that only creates. Somebody registered the name since we looked:
        // without the mark the account is not taken for ours.
        let call = Call::new(Method::PUT, "creation of an account", USERS_V2, &[&user]);
        self.ask(call.body(json!({ "external_ids": [] }))).await?;
        Err(HomeserverError::UserInUse { user })
    }

    async fn set_display_name(&self, user: &UserId, name: &str) -> Result<()> {
        self.put_user("setting a display name", user, json!({ "displayname": name })).await.map(|_| ())
    }

    async fn set_avatar(&self, user: &UserId, png: &'static [u8]) -> Result<()> {
        #[derive(Deserialize)]
        struct Uploaded {
            content_uri: String,
        }
        let call = Call::new(Method::POST, "upload of an avatar", "_matrix/media/v3/upload", &[]);
        let call = call.about(user.as_str()).query("filename", "avatar.png").png(png);
        let uploaded = self.ask(call).await?.parse::<Uploaded>()?;
        let avatar = json!({ "avatar_url": uploaded.content_uri });
        self.put_user("setting an avatar", user, avatar).await.map(|_| ())
    }

    async fn set_locked(&self, user: &UserId, locked: bool) -> Result<()> {
        self.put_user("locking an account", user, json!({ "locked": locked })).await.map(|_| ())
    }

    async fn deactivate(&self, user: &UserId) -> Result<()> {
        let root = "_synapse/admin/v1/deactivate";
        let call = Call::new(Method::POST, "deactivation of an account", root, &[user.as_str()]);
        self.ask(call.about(user.as_str()).slow().body(json!({ "erase": false }))).await.map(|_| ())
    }

    async fn reactivate(&self, user: &UserId, password: &SecretString) -> Result<()> {
        let body = json!({ "deactivated": false, "password": password.expose_secret() });
        let call = Call::new(Method::PUT, "reactivation of an account", USERS_V2, &[user.as_str()]);
        self.ask(call.about(user.as_str()).hiding(password).slow().body(body)).await.map(|_| ())
    }

    async fn set_unlimited(&self, user: &UserId, unlimited: bool) -> Result<()> {
        const WHAT: &str = "the rate limit of an account";
        let path = [user.as_str(), "override_ratelimit"];
        let call = |method| Call::new(method, WHAT, USERS_V1, &path).about(user.as_str());
        let now = self.ask(call(Method::GET)).await?.json;
        let none = json!({ "messages_per_second": 0, "burst_count": 0 });
        let is_unlimited = ["messages_per_second", "burst_count"]
            .into_iter()
            .all(|key| now.get(key).and_then(Value::as_u64) == Some(0));
        let has_override = now.get("messages_per_second").is_some();
        if unlimited && !is_unlimited {
            self.ask(call(Method::POST).body(none)).await?;
        } else if !unlimited && has_override {
            self.ask(call(Method::DELETE)).await?;
        }
        Ok(())
    }

    async fn puppet(&self, user: &UserId) -> Result<Session> {
        #[derive(Deserialize)]
        struct Token {
            access_token: String,
        }
        let body = json!({ "valid_until_ms": self.http.now_ms().saturating_add(PUPPET_LIFETIME_MS) });
        let call = Call::new(Method::POST, "a token to act as a user", USERS_V1, &[user.as_str(), "login"]);
        let token = self.ask(call.about(user.as_str()).body(body)).await?.parse::<Token>()?;
        Ok(Session { user_id: user.clone(), device_id: None, access_token: token.access_token.into() })
    }

    async fn delete_device(&self, user: &UserId, device: &DeviceId) -> Result<()> {
        let path = [user.as_str(), "devices", device.as_str()];
        let call = Call::new(Method::DELETE, "removal of a device", USERS_V2, &path);
        found(self.ask(call.about(device.as_str())).await).map(|_| ())
    }

    async fn devices(&self, user: &UserId) -> Result<Vec<DeviceId>> {
        #[derive(Deserialize)]
        struct Device {
            device_id: DeviceId,
        }
        #[derive(Deserialize)]
        struct Devices {
            devices: Vec<Device>,
        }
        let call = Call::new(Method::GET, "the devices of a user", USERS_V2, &[user.as_str(), "devices"]);
        let answer = self.ask(call.about(user.as_str()).large()).await?.parse::<Devices>()?;
        Ok(answer.devices.into_iter().map(|device| device.device_id).collect())
    }

    async fn rooms(&self) -> Result<RoomList> {
        rooms::all(self).await
    }

    async fn smallest_rooms(&self, most: u64) -> Result<Vec<RoomListing>> {
        rooms::smallest(self, most).await
    }

    async fn inhabited_rooms(&self) -> Result<u64> {
        rooms::inhabited(self).await
    }

    async fn joined_rooms(&self, user: &UserId) -> Result<Vec<RoomId>> {
        #[derive(Deserialize)]
        struct Joined {
            joined_rooms: Vec<RoomId>,
        }
        let path = [user.as_str(), "joined_rooms"];
        let call = Call::new(Method::GET, "the rooms of a user", USERS_V1, &path);
        let answer = self.ask(call.about(user.as_str()).large()).await?;
        Ok(answer.parse::<Joined>()?.joined_rooms)
    }

    async fn room_state(&self, room: &RoomId, event_type: Option<&str>) -> Result<Vec<StateEvent>> {
        #[derive(Deserialize)]
        struct State {
            state: Vec<Value>,
        }
        let mut call = Call::new(Method::GET, "the state of a room", ROOMS, &[room.as_str(), "state"]);
        if let Some(event_type) = event_type {
            call = call.query("type", event_type);
        }
        let answer = self.ask(call.about(room.as_str()).large()).await?.parse::<State>()?;
        Ok(readable::<StateRow>(answer.state).map(StateEvent::from).collect())
    }

    async fn make_room_admin(&self, room: &RoomId, user: &UserId) -> Result<()> {
        let path = [room.as_str(), "make_room_admin"];
        let call = Call::new(Method::POST, "power in a room", ROOMS, &path);
        self.ask(call.about(room.as_str()).slow().body(json!({ "user_id": user }))).await.map(|_| ())
    }

    async fn last_activity(&self, room: &RoomId) -> Result<Option<i64>> {
        #[derive(Deserialize)]
        struct Newest {
            origin_server_ts: i64,
        }
        // The newest event up to now: one that its sender dated in the future says nothing.
        let call = Call::new(
            Method::GET,
            "the newest event of a room",
            ROOMS,
            &[room.as_str(), "timestamp_to_event"],
        )
        .about(room.as_str())
        .query("ts", self.http.now_ms().to_string())
        .query("dir", "b");
        match found(self.ask(call).await)? {
            Some(answer) => Ok(Some(answer.parse::<Newest>()?.origin_server_ts)),
            None => Ok(None),
        }
    }

    async fn newest_events(
        &self,
        room: &RoomId,
        types: &[&str],
        sender: Option<&UserId>,
    ) -> Result<Vec<Value>> {
        rooms::newest_events(self, room, types, sender).await
    }

    async fn fetch_event(&self, event_id: &str) -> Result<Option<Value>> {
        #[derive(Deserialize)]
        struct Event {
            event: Value,
        }
        let call = Call::new(Method::GET, "an event", "_synapse/admin/v1/fetch_event", &[event_id]);
        match found(self.ask(call.about(event_id)).await)? {
            Some(answer) => Ok(Some(answer.parse::<Event>()?.event)),
            None => Ok(None),
        }
    }
}
