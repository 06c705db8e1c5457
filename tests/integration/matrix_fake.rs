//! The client-server API of a homeserver with one user in memory: as much as a worker needs, in the
//! order in which it needs it, with faults on demand.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{Method, Response, StatusCode, Uri},
};
use serde_json::{Value, json};

pub(crate) const USER: &str = "@auditbot:example.org";
pub(crate) const PASSWORD: &str = "password";
/// How long a sync waits for something to happen.
const LONG_POLL: Duration = Duration::from_millis(50);

/// The status of an answer that never comes.
pub(crate) const HANGS: u16 = 0;
/// The status of an answer that is the content of a media.
const MEDIA: u16 = 1;

/// What a request gets instead of its answer.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    /// Part of `METHOD path`.
    pub(crate) on: String,
    /// So many times.
    pub(crate) times: u32,
    /// [`HANGS`] for one that never comes.
    pub(crate) status: u16,
    pub(crate) body: &'static str,
    /// The request is carried out all the same.
    pub(crate) carried_out: bool,
}

/// What the media repository answers with.
#[derive(Debug, Clone)]
pub(crate) enum Media {
    Bytes(Vec<u8>),
    /// It never ends, and says nothing of its length.
    Endless,
}

#[derive(Clone, Default)]
pub(crate) struct World {
    /// `METHOD path` of every request, percent-decoded.
    pub(crate) requests: Vec<String>,
    /// The next requests that these fit fail.
    pub(crate) faults: Vec<Fault>,
    pub(crate) password_login: bool,
    /// So many tokens were given.
    logins: u32,
    /// Devices by their access tokens.
    pub(crate) tokens: BTreeMap<String, String>,
    pub(crate) device_keys: BTreeMap<String, Value>,
    pub(crate) one_time_keys: BTreeMap<String, Value>,
    pub(crate) cross_signing: BTreeMap<String, Value>,
    /// Keys of other users, as /keys/query tells them.
    pub(crate) others: Value,
    pub(crate) account_data: BTreeMap<String, Value>,
    /// Every key backup that there ever was, and the one that there is.
    pub(crate) backups: Vec<Value>,
    pub(crate) backup: Option<usize>,
    /// Rooms that the user is in, as the homeserver tells.
    pub(crate) joined: Vec<String>,
    /// What /sync answers, by its `since` (empty: none). Without an answer nothing has happened.
    pub(crate) syncs: BTreeMap<String, Value>,
    /// An answer of /sync is given once, and whoever asks again is told that nothing has happened.
    pub(crate) tells_once: bool,
    /// State events in force in any room, by type and key (`m.room.name/`).
    pub(crate) in_force: BTreeMap<String, Value>,
    /// Events that can be asked for one by one.
    pub(crate) events: BTreeMap<String, Value>,
    /// Pages of the history of any room, by their `from`. Those that end at a token have ` since ` and that in
    /// their names; what is not there is empty.
    pub(crate) pages: BTreeMap<String, Value>,
    /// How long the homeserver takes for a page.
    pub(crate) page_takes: Duration,
    /// When pages were asked for.
    pub(crate) pages_asked: Vec<Instant>,
    /// What the media repository has, by `server/id`.
    pub(crate) media: BTreeMap<String, Media>,
    /// Every `since` of /sync and name of a page, in order.
    pub(crate) asked: Vec<String>,
}

#[derive(Clone, Default)]
pub(crate) struct Fake {
    world: Arc<Mutex<World>>,
}

impl Fake {
    /// Starts it; returns it and its URL.
    pub(crate) async fn start() -> (Self, String) {
        let fake = Self::default();
        fake.world().password_login = true;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(fake.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (fake, url)
    }

    /// Devices that are logged in.
    pub(crate) fn devices(&self) -> Vec<String> {
        self.world().tokens.values().cloned().collect()
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    pub(crate) fn count(&self, part: &str) -> usize {
        self.world().requests.iter().filter(|request| request.contains(part)).count()
    }
}

fn refuse(status: u16, errcode: &str) -> (u16, Value) {
    (status, json!({"errcode": errcode, "error": "refused"}))
}

async fn answer(
    State(fake): State<Fake>,
    method: Method,
    uri: Uri,
    headers: axum::http::HeaderMap,
    body: Bytes,
) -> Response<Body> {
    // Localparts and servers are percent-encoded in paths.
    let path = uri.path().replace("%40", "@").replace("%3A", ":");
    let query = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    let query: BTreeMap<String, String> = query.into_owned().collect();
    let request = format!("{method} {path}");
    let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let token = headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let token = token.trim_start_matches("Bearer ").to_owned();
    let mut from = query.get("since").or(query.get("from")).cloned().unwrap_or_default();
    if let Some(to) = query.get("to") {
        from = format!("{from} since {to}");
    }
    let idle = path.ends_with("/sync") && !fake.world().syncs.contains_key(&from);
    if idle && query.get("timeout").is_some_and(|timeout| timeout != "0") {
        tokio::time::sleep(LONG_POLL).await;
    }
    if path.ends_with("/messages") {
        let takes = {
            let mut world = fake.world();
            world.pages_asked.push(Instant::now());
            world.page_takes
        };
        tokio::time::sleep(takes).await;
    }
    let (status, text) = {
        let mut world = fake.world();
        world.requests.push(request.clone());
        let fault = world.faults.iter_mut().find(|fault| fault.times > 0 && request.contains(&fault.on));
        let fault = fault.map(|fault| {
            fault.times -= 1;
            fault.clone()
        });
        let answer = match &fault {
            Some(fault) if !fault.carried_out => None,
            _ => Some(world.act(&method, &path, &from, &token, &body)),
        };
        match (fault, answer) {
            (Some(fault), _) => (fault.status, fault.body.to_owned()),
            (None, Some((status, value))) => (status, value.to_string()),
            (None, None) => unreachable!(),
        }
    };
    if status == HANGS {
        return std::future::pending().await;
    }
    if status == MEDIA {
        return download(fake.world().media[text.trim_matches('"')].clone());
    }
    Response::builder()
        .status(StatusCode::from_u16(status).unwrap())
        .header("content-type", "application/json")
        .body(Body::from(text))
        .unwrap()
}

fn download(media: Media) -> Response<Body> {
    let body = match media {
        Media::Bytes(bytes) => Body::from(bytes),
        Media::Endless => {
            let part = Bytes::from_static(&[7; 4096]);
            Body::from_stream(futures::stream::repeat_with(move || Ok::<_, std::io::Error>(part.clone())))
        }
    };
    Response::builder().header("content-type", "application/octet-stream").body(body).unwrap()
}

impl World {
    fn act(&mut self, method: &Method, path: &str, from: &str, token: &str, body: &Value) -> (u16, Value) {
        let path = path.trim_start_matches("/_matrix/client/").trim_start_matches("v3/");
        if !self.tokens.contains_key(token) && !matches!(path, "versions" | "login") {
            return refuse(401, "M_UNKNOWN_TOKEN");
        }
        let data = path.split("/account_data/").nth(1).map(str::to_owned);
        match (method.as_str(), path) {
            ("GET", "versions") => (200, json!({"versions": ["v1.12"]})),
            ("GET", "login") => {
                let flow = if self.password_login { "m.login.password" } else { "m.login.sso" };
                (200, json!({"flows": [{"type": flow}]}))
            }
            ("POST", "login") => self.log_in(body),
            ("GET", "account/whoami") => (200, json!({"user_id": USER, "device_id": self.tokens[token]})),
            ("POST", "keys/upload") => {
                if let Some(keys) = body.get("device_keys") {
                    self.device_keys.insert(self.tokens[token].clone(), keys.clone());
                }
                if let Some(keys) = body.get("one_time_keys") {
                    self.one_time_keys.insert(self.tokens[token].clone(), keys.clone());
                }
                (200, json!({"one_time_key_counts": {"signed_curve25519": 50}}))
            }
            ("POST", "keys/query") => (200, self.keys()),
            ("POST", "keys/device_signing/upload") => self.cross_sign(body),
            ("POST", "keys/signatures/upload") => self.sign(body),
            ("GET", "room_keys/version") => match self.backup {
                Some(at) => (200, self.backups[at].clone()),
                None => refuse(404, "M_NOT_FOUND"),
            },
            ("POST", "room_keys/version") => {
                let version = (self.backups.len() + 1).to_string();
                let mut backup = body.clone();
                backup["version"] = version.clone().into();
                backup["count"] = 0.into();
                backup["etag"] = "0".into();
                self.backups.push(backup);
                self.backup = Some(self.backups.len() - 1);
                (200, json!({"version": version}))
            }
            ("DELETE", _) if path.starts_with("room_keys/version/") => {
                self.backup = None;
                (200, json!({}))
            }
            // No backup is ever forgotten, and none holds anything.
            ("GET", _) if path.starts_with("room_keys/keys/") => (200, json!({"sessions": {}})),
            ("GET", "joined_rooms") => (200, json!({"joined_rooms": self.joined})),
            ("GET", _) if data.is_some() => match self.account_data.get(&data.unwrap()) {
                Some(value) => (200, value.clone()),
                None => refuse(404, "M_NOT_FOUND"),
            },
            ("PUT", _) if data.is_some() => {
                self.account_data.insert(data.unwrap(), body.clone());
                (200, json!({}))
            }
            ("GET", "sync") => {
                self.asked.push(from.to_owned());
                let nothing = json!({"next_batch": if from.is_empty() { "s1" } else { from }});
                let told = self.syncs.get(from).cloned();
                if self.tells_once {
                    self.syncs.remove(from);
                }
                (200, told.unwrap_or(nothing))
            }
            ("GET", _) if path.contains("media/download/") || path.contains("media/v3/download/") => {
                let id = path.split("download/").nth(1).unwrap_or_default();
                if self.media.contains_key(id) { (MEDIA, id.into()) } else { refuse(404, "M_NOT_FOUND") }
            }
            ("GET", _) if path.starts_with("rooms/") && path.ends_with("/messages") => {
                self.asked.push(from.to_owned());
                match self.pages.get(from) {
                    Some(page) => (200, page.clone()),
                    None if from.contains(" since ") => (200, json!({"start": from, "chunk": []})),
                    None => refuse(403, "M_FORBIDDEN"),
                }
            }
            ("GET", _) if path.starts_with("rooms/") && path.contains("/event/") => {
                match self.events.get(path.rsplit('/').next().unwrap_or_default()) {
                    Some(event) => (200, event.clone()),
                    None => refuse(404, "M_NOT_FOUND"),
                }
            }
            ("GET", _) if path.starts_with("rooms/") && path.contains("/state/") => {
                let setting = path.split("/state/").nth(1).unwrap_or_default();
                match self.in_force.get(setting) {
                    Some(event) => (200, event.clone()),
                    None => refuse(404, "M_NOT_FOUND"),
                }
            }
            ("GET", _) if path.starts_with("v1/rooms/") && path.ends_with("/m.replace") => {
                let of = path.split('/').nth_back(1).unwrap_or_default();
                (200, json!({"chunk": self.edits(of)}))
            }
            _ => refuse(404, "M_UNRECOGNIZED"),
        }
    }

    /// All edits of an event that the homeserver knows; as Synapse, none of one that is redacted.
    fn edits(&self, of: &str) -> Vec<Value> {
        let rooms = self.syncs.values().filter_map(|answer| answer["rooms"]["join"].as_object()).flatten();
        let told = rooms.filter_map(|(_, room)| room["timeline"]["events"].as_array());
        let history = self.pages.values().filter_map(|page| page["chunk"].as_array());
        let known: Vec<&Value> = told.chain(history).flatten().collect();
        if known.iter().any(|event| event["redacts"] == of) {
            return Vec::new();
        }
        let is_edit = |event: &&&Value| {
            let relation = &event["content"]["m.relates_to"];
            relation["rel_type"] == "m.replace" && relation["event_id"] == of
        };
        known.iter().filter(is_edit).map(|event| (*event).clone()).collect()
    }

    fn log_in(&mut self, body: &Value) -> (u16, Value) {
        if body["password"] != PASSWORD {
            return refuse(403, "M_FORBIDDEN");
        }
        let device = body["device_id"].as_str().unwrap().to_owned();
        // As the mock server of the SDK numbers its own, for whoever moves there.
        let token = format!("TOKEN_{}", self.logins);
        self.logins += 1;
        self.tokens.retain(|_, known| *known != device);
        self.tokens.insert(token.clone(), device.clone());
        (200, json!({"user_id": USER, "device_id": device, "access_token": token}))
    }

    fn keys(&self) -> Value {
        let part =
            |name: &str| self.cross_signing.get(name).map_or_else(|| json!({}), |key| json!({USER: key}));
        let mut keys = json!({"device_keys": {USER: self.device_keys}, "master_keys": part("master_key"),
            "self_signing_keys": part("self_signing_key"), "user_signing_keys": part("user_signing_key"),
            "failures": {}});
        for (kind, of_users) in self.others.as_object().into_iter().flatten() {
            for (user, key) in of_users.as_object().into_iter().flatten() {
                keys[kind][user] = key.clone();
            }
        }
        keys
    }

    /// The first upload needs nothing; replacing keys needs the password.
    fn cross_sign(&mut self, body: &Value) -> (u16, Value) {
        // As Synapse: a key comes with the signature of the master key.
        if body["self_signing_key"]["signatures"][USER].as_object().is_none_or(serde_json::Map::is_empty) {
            return refuse(400, "M_INVALID_SIGNATURE");
        }
        let replaces =
            self.cross_signing.get("master_key").is_some_and(|old| old["keys"] != body["master_key"]["keys"]);
        if replaces && body["auth"]["password"] != PASSWORD {
            return (401, json!({"flows": [{"stages": ["m.login.password"]}], "params": {}, "session": "s"}));
        }
        for name in ["master_key", "self_signing_key", "user_signing_key"] {
            if let Some(key) = body.get(name) {
                self.cross_signing.insert(name.to_owned(), key.clone());
            }
        }
        (200, json!({}))
    }

    /// Signatures of keys that were not uploaded are failures, as with Synapse.
    fn sign(&mut self, body: &Value) -> (u16, Value) {
        let mut failures = serde_json::Map::new();
        for (id, signed) in body[USER].as_object().unwrap() {
            let key = match self.device_keys.get_mut(id) {
                Some(device) => Some(device),
                None => self.cross_signing.get_mut("master_key").filter(|key| is_key(key, id)),
            };
            let Some(key) = key.filter(|key| key["keys"] == signed["keys"]) else {
                failures.insert(id.clone(), json!({"errcode": "M_NOT_FOUND", "error": "no such key"}));
                continue;
            };
            for (signature, value) in signed["signatures"][USER].as_object().into_iter().flatten() {
                key["signatures"][USER][signature] = value.clone();
            }
        }
        let failures = if failures.is_empty() { json!({}) } else { json!({USER: failures}) };
        (200, json!({"failures": failures}))
    }
}

fn is_key(key: &Value, public: &str) -> bool {
    key["keys"].as_object().is_some_and(|keys| keys.values().any(|value| value == public))
}
