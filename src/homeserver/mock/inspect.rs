//! What the mock shows to who only looks.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde_json::{Map, Value};

use super::{MockHomeserver, World};
use crate::{
    domain::RoomId,
    homeserver::{
        AccountFacts, History, HomeserverError, Inspect, MediaUpload, ModuleFacts, QuarantineChange, Report,
        Result, Rows, ServerFacts, Session, SessionFacts,
    },
};

/// Rows of a page: few, so that there is more than one.
const PAGE: usize = 2;

/// What the admin API shows; tests write it.
#[derive(Debug, Clone, Default)]
pub struct Inspection {
    /// Every account, oldest first.
    pub accounts: Vec<AccountFacts>,
    /// What only an account itself shows.
    pub details: BTreeMap<String, Map<String, Value>>,
    /// Sessions by account.
    pub sessions: BTreeMap<String, Vec<SessionFacts>>,
    /// Uploads by account, newest first.
    pub uploads: BTreeMap<String, Vec<MediaUpload>>,
    /// Changes of the quarantine, oldest first.
    pub quarantine: Vec<QuarantineChange>,
    /// Reports of events, newest first.
    pub event_reports: Vec<Report>,
    /// Reports of users, newest first.
    pub user_reports: Vec<Report>,
    /// Pages of the history of any room, by the token that they begin at. Those that end at a token have
    /// ` since ` and that in their name; without one, nothing came late. With ` by ` and a limit at the end of its
    /// name a page is for those who ask for so many events.
    pub history: BTreeMap<String, History>,
    /// The homeserver itself.
    pub server: ServerFacts,
    /// The module that puts bots into new rooms.
    pub module: Option<ModuleFacts>,
}

pub(super) struct MockInspect {
    pub(super) server: MockHomeserver,
    pub(super) session: Session,
}

impl MockInspect {
    async fn look<T: Send>(
        &self,
        call: &'static str,
        subject: &str,
        look: impl FnOnce(&Inspection) -> T + Send,
    ) -> Result<T> {
        let checked = |world: &mut World| {
            world.require_admin(&self.session, call)?;
            Ok(look(&world.inspection))
        };
        self.server.perform(call, subject, self.session.user_id.as_str(), checked).await
    }
}

fn page<T: Clone>(all: &[T], from: u64) -> Rows<T> {
    let from = usize::try_from(from).unwrap_or(usize::MAX);
    let rows: Vec<T> = all.iter().skip(from).take(PAGE).cloned().collect();
    let end = from.saturating_add(rows.len());
    Rows { next: (end < all.len()).then_some(end as u64), rows }
}

#[async_trait]
impl Inspect for MockInspect {
    async fn accounts(&self, from: u64) -> Result<Rows<AccountFacts>> {
        self.look("accounts", "", |seen| page(&seen.accounts, from)).await
    }

    async fn account(&self, user: &str) -> Result<Option<Map<String, Value>>> {
        self.look("account_details", user, |seen| {
            let is_there = seen.accounts.iter().any(|account| account.user == user);
            is_there.then(|| seen.details.get(user).cloned().unwrap_or_default())
        })
        .await
    }

    async fn sessions(&self, user: &str) -> Result<Option<Vec<SessionFacts>>> {
        self.look("sessions", user, |seen| {
            let is_there = seen.accounts.iter().any(|account| account.user == user);
            is_there.then(|| seen.sessions.get(user).cloned().unwrap_or_default())
        })
        .await
    }

    async fn uploaders(&self, since_ms: i64, from: u64) -> Result<Rows<String>> {
        self.look("uploaders", "", |seen| {
            let has_new = |uploads: &Vec<MediaUpload>| uploads.iter().any(|file| file.created_ms > since_ms);
            let users: Vec<String> = seen
                .uploads
                .iter()
                .filter(|(_, files)| has_new(files))
                .map(|(user, _)| user.clone())
                .collect();
            page(&users, from)
        })
        .await
    }

    async fn uploads(&self, user: &str, from: u64) -> Result<Rows<MediaUpload>> {
        self.look("uploads", user, |seen| {
            page(seen.uploads.get(user).map(Vec::as_slice).unwrap_or_default(), from)
        })
        .await
    }

    async fn quarantine(&self, after: u64) -> Result<(Vec<QuarantineChange>, u64)> {
        self.look("quarantine", "", |seen| {
            let page = page(&seen.quarantine, after);
            let next = after + page.rows.len() as u64;
            (page.rows, next)
        })
        .await
    }

    async fn event_reports(&self, from: u64) -> Result<Rows<Report>> {
        self.look("event_reports", "", |seen| page(&seen.event_reports, from)).await
    }

    async fn user_reports(&self, from: u64) -> Result<Rows<Report>> {
        self.look("user_reports", "", |seen| page(&seen.user_reports, from)).await
    }

    async fn history(&self, room: &RoomId, from: &str, to: Option<&str>, limit: u16) -> Result<History> {
        let name = to.map_or_else(|| from.to_owned(), |to| format!("{from} since {to}"));
        let other_size = format!("{name} by {limit}");
        let find = |seen: &Inspection| seen.history.get(&other_size).or(seen.history.get(&name)).cloned();
        let found = self.look("history", room.as_str(), find).await?;
        let found = found.or_else(|| to.map(|_| History::default()));
        found.ok_or_else(|| HomeserverError::NotFound { what: room.to_string() })
    }

    async fn server(&self) -> Result<ServerFacts> {
        self.look("server", "", |seen| seen.server.clone()).await
    }

    async fn module(&self) -> Result<Option<ModuleFacts>> {
        self.look("module", "", |seen| seen.module.clone()).await
    }
}
