//! What the homeserver tells of single events.

use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use matrix_sdk::{
    Client,
    ruma::{
        OwnedEventId, OwnedRoomId, api::client::relations::get_relating_events_with_rel_type::v1 as relating,
        events::relation::RelationType, uint,
    },
};
use serde_json::Value;
use tokio::time::Instant;

use super::{received, received::Secrecy};
use crate::{
    domain::{Failure, Retry},
    homeserver::{Admin, HomeserverError},
    worker::{
        backoff::Backoff,
        convert::read,
        session::{SessionError, classify_http},
    },
};

/// A homeserver that is away is waited for so long, once: what a record does not say, no later one says.
const PATIENCE: Duration = Duration::from_mins(1);

/// So often an event is asked for, if it may be this event only that has no answer.
const ATTEMPTS: u32 = 3;

/// So many hundred edits of an event are looked at.
const PAGES_OF_EDITS: usize = 10;

/// Asks an administrator's account and the bot's own.
#[derive(Clone)]
pub(super) struct Homeserver {
    admin: Arc<dyn Admin>,
    client: Client,
    /// Since when it has been away.
    away: Arc<Mutex<Option<Instant>>>,
}

impl Homeserver {
    pub(super) fn new(admin: Arc<dyn Admin>, client: Client) -> Self {
        Self { admin, client, away: Arc::default() }
    }

    /// For somebody else who waits, also while others get answers.
    pub(super) fn apart(&self) -> Self {
        Self { away: Arc::default(), ..self.clone() }
    }

    /// The admin API keeps the content of a redacted event for some days. Not having it is no
    /// reason to stop: the record then says what is known.
    pub(super) async fn event(&self, target: &str, room: &str) -> Option<Value> {
        let event = self.fetch(target).await?;
        // Somebody may refer to an event of another room to have its text copied into this one's trail.
        if event.get("room_id").and_then(|id| id.as_str()).is_some_and(|id| id != room) {
            return None;
        }
        Some(self.decrypted(room, &event).await.unwrap_or(event))
    }

    /// All edits of an event that the homeserver shows the bot; nothing if it does not answer, or has too many.
    pub(super) async fn edits(&self, of: &str, room: &str) -> Option<Vec<Value>> {
        let (room, event) = (OwnedRoomId::try_from(room).ok()?, OwnedEventId::try_from(of).ok()?);
        let mut request = relating::Request::new(room, event, RelationType::Replacement);
        request.limit = Some(uint!(100));
        let mut edits = Vec::new();
        for _ in 0..PAGES_OF_EDITS {
            let ask = || {
                let request = self.client.send(request.clone());
                async move { request.await.map_err(|error| classify_http(&error)) }
            };
            let page = self.patiently(of, ask).await?;
            edits.extend(page.chunk.iter().map(|event| read(event.json().get())));
            request.from = page.next_batch;
            if request.from.is_none() {
                return Some(edits);
            }
        }
        None
    }

    async fn fetch(&self, target: &str) -> Option<Value> {
        let ask = || async { self.admin.fetch_event(target).await.map_err(SessionError::Admin) };
        self.patiently(target, ask).await.flatten()
    }

    /// What the homeserver answers about an event; one that does not answer now is asked again.
    pub(super) async fn patiently<T, F>(&self, target: &str, ask: impl Fn() -> F) -> Option<T>
    where
        F: Future<Output = Result<T, SessionError>>,
    {
        let mut backoff = Backoff::default();
        loop {
            let error = match ask().await {
                Ok(answer) => {
                    self.is_away(false);
                    return Some(answer);
                }
                Err(error) => error,
            };
            tracing::debug!(category = error.category(), %error, "cannot ask about an event");
            let wait = match error {
                SessionError::RateLimited { .. }
                | SessionError::Admin(HomeserverError::RateLimited { .. }) => backoff.next(error.retry()),
                _ => backoff.next(Retry::Backoff),
            };
            if !is_ordinary(target) || !self.may_pass(&error, backoff.failures()) {
                return None;
            }
            tokio::time::sleep(wait.min(PATIENCE)).await;
        }
    }

    /// The homeserver has answered: when it is away again, it is waited for again.
    pub(super) fn answered(&self) {
        self.is_away(false);
    }

    fn may_pass(&self, error: &SessionError, attempts: u32) -> bool {
        match error {
            SessionError::Server { status: 500 }
            | SessionError::Admin(
                HomeserverError::Server { status: 500, .. } | HomeserverError::NotOffered { .. },
            ) => attempts < ATTEMPTS,
            SessionError::Unreachable { .. }
            | SessionError::Server { .. }
            | SessionError::RateLimited { .. }
            | SessionError::Admin(
                HomeserverError::Unreachable { .. }
                | HomeserverError::Server { .. }
                | HomeserverError::RateLimited { .. }
                // Its session is renewed, or mended by a person.
                | HomeserverError::CredentialRefused { .. }
                | HomeserverError::NotAdmin
                | HomeserverError::Locked { .. },
            ) => self.is_away(true) < PATIENCE,
            _ => false,
        }
    }

    /// For how long it has been away, now that it is, or is not.
    fn is_away(&self, away: bool) -> Duration {
        let mut since = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        if away {
            since.get_or_insert_with(Instant::now).elapsed()
        } else {
            *since = None;
            Duration::ZERO
        }
    }

    /// The event's plaintext, if it is encrypted and can be decrypted.
    pub(super) async fn decrypted(&self, room: &str, event: &Value) -> Option<Value> {
        let room = self.client.get_room(matrix_sdk::ruma::RoomId::parse(room).ok()?.as_ref())?;
        let raw = serde_json::value::to_raw_value(event).ok()?;
        match received::decrypt(&room, &raw, true).await.ok()?.secrecy {
            Secrecy::Opened(opened) => serde_json::from_str(&opened.raw).ok(),
            Secrecy::Plain | Secrecy::Closed(_) => None,
        }
    }
}

/// As homeservers name events. What else somebody refers to may be what something on the way takes offence at:
/// nobody can make capture wait with it.
fn is_ordinary(target: &str) -> bool {
    let rest = target.strip_prefix('$').unwrap_or_default();
    !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}
