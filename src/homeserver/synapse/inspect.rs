//! What a server admin's token can see.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Map, Value, value::RawValue};

use super::{
    admin::{found, readable},
    answer::Answer,
    http::{Call, Http},
};
use crate::{
    domain::RoomId,
    homeserver::{
        AccountFacts, History, HomeserverError, Inspect, MediaUpload, ModuleFacts, QuarantineChange, Report,
        Result, Rows, ServerFacts, Session, SessionFacts,
    },
};

const USERS_V2: &str = "_synapse/admin/v2/users";

/// Rows of a listing: 10,000 accounts are ten requests.
const PAGE: &str = "1000";
/// Rows of what is read from its newest end until something is known.
const SHORT_PAGE: &str = "100";

/// What the listing shows of an account and the trail keeps.
pub const ACCOUNT_LISTED: [&str; 10] = [
    "user_type",
    "is_guest",
    "admin",
    "deactivated",
    "shadow_banned",
    "displayname",
    "avatar_url",
    "erased",
    "locked",
    "approved",
];
/// What only the account itself shows.
pub const ACCOUNT_DETAILS: [&str; 5] =
    ["suspended", "threepids", "external_ids", "appservice_id", "consent_version"];

pub(super) struct SynapseInspect {
    pub http: Arc<Http>,
    pub session: Session,
}

#[derive(Deserialize)]
struct AccountRow {
    name: String,
    creation_ts: Option<i64>,
    last_seen_ts: Option<i64>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl From<AccountRow> for AccountFacts {
    fn from(row: AccountRow) -> Self {
        Self {
            user: row.name,
            facts: only(row.rest, &ACCOUNT_LISTED),
            created_ms: row.creation_ts,
            last_seen_ms: row.last_seen_ts,
        }
    }
}

fn only(mut all: Map<String, Value>, fields: &[&str]) -> Map<String, Value> {
    all.retain(|name, _| fields.contains(&name.as_str()));
    all
}

#[derive(Deserialize)]
struct SessionRow {
    device_id: String,
    display_name: Option<String>,
    last_seen_ip: Option<String>,
    last_seen_user_agent: Option<String>,
}

#[derive(Deserialize)]
struct UploadRow {
    media_id: String,
    created_ts: i64,
    media_type: Option<String>,
    media_length: Option<i64>,
    upload_name: Option<String>,
    /// The web page whose preview it is.
    url_cache: Option<String>,
}

impl From<UploadRow> for MediaUpload {
    fn from(row: UploadRow) -> Self {
        Self {
            media: row.media_id,
            created_ms: row.created_ts,
            content_type: row.media_type,
            length: row.media_length,
            name: row.upload_name,
            is_preview: row.url_cache.is_some(),
        }
    }
}

/// Of events: `sender` is whom it is about. Of users: `target_user_id`.
#[derive(Deserialize)]
struct ReportRow {
    id: i64,
    received_ts: Option<i64>,
    user_id: String,
    reason: Option<String>,
    room_id: Option<String>,
    event_id: Option<String>,
    sender: Option<String>,
    target_user_id: Option<String>,
}

fn report(raw: Value) -> Option<Report> {
    let row = ReportRow::deserialize(&raw).ok()?;
    Some(Report {
        id: row.id,
        received_ms: row.received_ts,
        reporter: row.user_id,
        reason: row.reason,
        room: row.room_id,
        event: row.event_id,
        reported: row.target_user_id.or(row.sender),
        raw,
    })
}

/// `next_token` is a text in some answers and a number in others.
fn next(answer: &Value, from: u64) -> Option<u64> {
    let token = answer.get("next_token")?;
    let token = token.as_u64().or_else(|| token.as_str()?.parse().ok());
    // A page that does not advance would never end.
    token.filter(|next| *next > from)
}

fn rows<T: for<'de> Deserialize<'de>, U: From<T>>(mut answer: Value, list: &str, from: u64) -> Rows<U> {
    let rows = answer.get_mut(list).and_then(Value::as_array_mut).map(std::mem::take).unwrap_or_default();
    Rows { rows: readable::<T>(rows).map(U::from).collect(), next: next(&answer, from) }
}

impl SynapseInspect {
    async fn ask(&self, call: Call<'_>) -> Result<Answer> {
        self.http.send(call.token(&self.session.access_token)).await
    }

    async fn list(
        &self,
        what: &'static str,
        path: &'static str,
        from: u64,
        query: &[(&'static str, &str)],
    ) -> Result<Value> {
        let mut call = Call::new(Method::GET, what, path, &[]).query("from", from.to_string()).large();
        for (name, value) in query {
            call = call.query(name, *value);
        }
        Ok(self.ask(call).await?.json)
    }

    async fn reports(
        &self,
        what: &'static str,
        path: &'static str,
        list: &str,
        from: u64,
    ) -> Result<Rows<Report>> {
        let mut answer = self.list(what, path, from, &[("limit", SHORT_PAGE), ("dir", "b")]).await?;
        let found =
            answer.get_mut(list).and_then(Value::as_array_mut).map(std::mem::take).unwrap_or_default();
        Ok(Rows { rows: found.into_iter().filter_map(report).collect(), next: next(&answer, from) })
    }
}

#[async_trait]
impl Inspect for SynapseInspect {
    async fn accounts(&self, from: u64) -> Result<Rows<AccountFacts>> {
        // New accounts come last, so that none is skipped when one is made between two pages.
        let query =
            [("limit", PAGE), ("order_by", "creation_ts"), ("deactivated", "true"), ("locked", "true")];
        let answer = self.list("the list of accounts", USERS_V2, from, &query).await?;
        Ok(rows::<AccountRow, _>(answer, "users", from))
    }

    async fn account(&self, user: &str) -> Result<Option<Map<String, Value>>> {
        let call = Call::new(Method::GET, "an account", USERS_V2, &[user]).about(user);
        let Some(answer) = found(self.ask(call).await)? else { return Ok(None) };
        Ok(Some(only(answer.parse()?, &ACCOUNT_DETAILS)))
    }

    async fn sessions(&self, user: &str) -> Result<Option<Vec<SessionFacts>>> {
        let call = Call::new(Method::GET, "the sessions of a user", USERS_V2, &[user, "devices"]);
        let Some(answer) = found(self.ask(call.about(user).large()).await)? else { return Ok(None) };
        Ok(Some(rows::<SessionRow, _>(answer.json, "devices", 0).rows))
    }

    async fn uploaders(&self, since_ms: i64, from: u64) -> Result<Rows<String>> {
        #[derive(Deserialize)]
        struct Uploader {
            user_id: String,
        }
        impl From<Uploader> for String {
            fn from(row: Uploader) -> Self {
                row.user_id
            }
        }
        let since = since_ms.to_string();
        let query = [("limit", PAGE), ("from_ts", since.as_str())];
        let answer = self
            .list("the media statistics", "_synapse/admin/v1/statistics/users/media", from, &query)
            .await?;
        Ok(rows::<Uploader, _>(answer, "users", from))
    }

    async fn uploads(&self, user: &str, from: u64) -> Result<Rows<MediaUpload>> {
        let path = [user, "media"];
        let call = Call::new(Method::GET, "the media of a user", "_synapse/admin/v1/users", &path)
            .about(user)
            .large()
            .query("from", from.to_string())
            .query("limit", SHORT_PAGE)
            .query("order_by", "created_ts")
            .query("dir", "b");
        // The account of a bridge may upload and be no account for the admin API.
        let Some(answer) = found(self.ask(call).await)? else {
            return Ok(Rows { rows: Vec::new(), next: None });
        };
        Ok(rows::<UploadRow, _>(answer.json, "media", from))
    }

    async fn quarantine(&self, after: u64) -> Result<(Vec<QuarantineChange>, u64)> {
        #[derive(Deserialize)]
        struct Change {
            origin: String,
            media_id: String,
            quarantined: bool,
        }
        #[derive(Deserialize)]
        struct Changes {
            changes: Vec<Change>,
            next_batch: u64,
        }
        let path = "_synapse/admin/v1/media/quarantine_changes";
        let call = Call::new(Method::GET, "the changes of the quarantine", path, &[]);
        let answer = self.ask(call.query("from", after.to_string())).await?.parse::<Changes>()?;
        let change = |change: Change| QuarantineChange {
            origin: change.origin,
            media: change.media_id,
            quarantined: change.quarantined,
        };
        Ok((answer.changes.into_iter().map(change).collect(), answer.next_batch))
    }

    async fn event_reports(&self, from: u64) -> Result<Rows<Report>> {
        self.reports("the reports of events", "_synapse/admin/v1/event_reports", "event_reports", from).await
    }

    async fn user_reports(&self, from: u64) -> Result<Rows<Report>> {
        self.reports("the reports of users", "_synapse/admin/v1/user_reports", "user_reports", from).await
    }

    async fn history(&self, room: &RoomId, from: &str, to: Option<&str>, limit: u16) -> Result<History> {
        #[derive(Deserialize)]
        struct Page {
            chunk: Vec<Box<RawValue>>,
            end: Option<String>,
        }
        let path = [room.as_str(), "messages"];
        let mut call = Call::new(Method::GET, "the history of a room", "_synapse/admin/v1/rooms", &path)
            .about(room.as_str())
            .token(&self.session.access_token)
            .large()
            .query("dir", "b")
            .query("limit", limit.to_string())
            .query("from", from);
        if let Some(to) = to {
            call = call.query("to", to);
        }
        let text = self.http.send_for_text(call).await?;
        let page: Page = serde_json::from_slice(&text).map_err(|_| {
            self.http.broken("the history of a room is not what a homeserver sends".to_owned())
        })?;
        Ok(History { events: page.chunk, end: page.end })
    }

    async fn server(&self) -> Result<ServerFacts> {
        #[derive(Deserialize)]
        struct Version {
            server_version: String,
        }
        #[derive(Deserialize)]
        struct Spoken {
            versions: Vec<String>,
            #[serde(default)]
            unstable_features: BTreeMap<String, bool>,
        }
        #[derive(Deserialize)]
        struct Running {
            name: String,
        }
        #[derive(Deserialize)]
        struct Updates {
            enabled: bool,
            #[serde(default)]
            current_updates: BTreeMap<String, Running>,
        }
        let get = |what, path| Call::new(Method::GET, what, path, &[]);
        let version = get("the version of the homeserver", "_synapse/admin/v1/server_version");
        let version = self.ask(version).await?.parse::<Version>()?;
        let spoken = get("the versions of the API", "_matrix/client/versions");
        let spoken = self.ask(spoken).await?.parse::<Spoken>()?;
        let updates = get("the background updates", "_synapse/admin/v1/background_updates/status");
        let updates = self.ask(updates).await?.parse::<Updates>()?;
        Ok(ServerFacts {
            version: version.server_version,
            api_versions: spoken.versions,
            features: spoken.unstable_features,
            background_updates: updates.enabled,
            running_updates: updates
                .current_updates
                .into_iter()
                .map(|(database, update)| (database, update.name))
                .collect(),
        })
    }

    async fn module(&self) -> Result<Option<ModuleFacts>> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Bot {
            user_id: String,
            #[serde(default)]
            rooms: Value,
        }
        #[derive(Deserialize)]
        struct Answer {
            version: String,
            active: bool,
            bots: Vec<Bot>,
        }
        let path = "_synapse/client/ems_bots/v1/status";
        match self.ask(Call::new(Method::GET, "the status of the module", path, &[])).await {
            Err(HomeserverError::NotOffered { .. } | HomeserverError::NotFound { .. }) => Ok(None),
            answer => {
                let Answer { version, active, bots } = answer?.parse()?;
                let bots = bots.into_iter().map(|bot| (bot.user_id, bot.rooms)).collect();
                Ok(Some(ModuleFacts { version, active, bots }))
            }
        }
    }
}

impl From<SessionRow> for SessionFacts {
    fn from(row: SessionRow) -> Self {
        Self {
            device: row.device_id,
            name: row.display_name,
            ip: row.last_seen_ip,
            user_agent: row.last_seen_user_agent,
        }
    }
}
