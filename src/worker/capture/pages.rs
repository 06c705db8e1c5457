//! Pages of a room's history, as the homeserver shows them.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use matrix_sdk::{
    Client,
    ruma::{OwnedRoomId, api::client::message::get_message_events},
};

use super::history::{LASTING, Span};
use crate::{
    domain::RoomId,
    homeserver::{HomeserverError, Inspect},
    worker::session::{SessionError, classify_http},
};

/// One page of a room's history, newest event first.
pub(crate) struct HistoryPage {
    pub(crate) events: Vec<Box<serde_json::value::RawValue>>,
    pub(crate) next: Option<String>,
}

/// Events that are asked for at a time: what is there usually, and another number.
const PAGE: u16 = 100;
const OTHER_PAGE: u16 = 137;

/// Reads pages of history.
pub(crate) struct Reader {
    pub(crate) client: Client,
    pub(crate) inspect: Option<Arc<dyn Inspect>>,
    /// Whether the homeserver has shown an administrator any history.
    pub(crate) is_offered: Arc<AtomicBool>,
}

impl Reader {
    /// Reads the page that a span is at; so often it failed before.
    pub(crate) async fn page(&self, span: &Span, failures: u32) -> Result<HistoryPage, SessionError> {
        let page = self.read(span, &span.from, PAGE, failures).await?;
        let Some(next) = page.next.as_deref().filter(|_| span.since.is_some()) else { return Ok(page) };
        // Synapse takes a page that ends exactly where the span was received first for its last one, although older
        // parts of the room may have come late, too (`stream.py`, `is_before_or_eq`). Pages of another size end
        // elsewhere.
        let ahead = self.read(span, next, PAGE, failures).await?;
        if ahead.events.is_empty() && ahead.next.is_none() {
            return self.read(span, &span.from, OTHER_PAGE, failures).await;
        }
        Ok(page)
    }

    /// As an administrator, who sees what was said before the bot came and while it was away whatever the
    /// room's history visibility is; where that is not offered, as the bot.
    async fn read(
        &self,
        span: &Span,
        from: &str,
        limit: u16,
        failures: u32,
    ) -> Result<HistoryPage, SessionError> {
        let (Some(inspect), Ok(room)) = (&self.inspect, RoomId::parse(span.room.as_str())) else {
            return self.read_as_bot(span, from, limit).await;
        };
        match inspect.history(&room, from, span.since.as_deref(), limit).await {
            Ok(page) => {
                self.is_offered.store(true, Ordering::Relaxed);
                Ok(HistoryPage { events: page.events, next: page.end.filter(|end| end != from) })
            }
            // What stands in front of the homeserver may say so for a moment, and the bot sees less.
            Err(HomeserverError::NotOffered { what })
                if failures < LASTING || self.is_offered.load(Ordering::Relaxed) =>
            {
                Err(HomeserverError::Server { status: 404, what }.into())
            }
            Err(
                HomeserverError::NotOffered { .. }
                | HomeserverError::NotFound { .. }
                | HomeserverError::Refused { .. },
            ) => self.read_as_bot(span, from, limit).await,
            Err(error) => Err(error.into()),
        }
    }

    async fn read_as_bot(&self, span: &Span, from: &str, limit: u16) -> Result<HistoryPage, SessionError> {
        let room = OwnedRoomId::try_from(span.room.as_str())
            .map_err(|_| SessionError::Client { problem: "not a room id".to_owned() })?;
        let mut request = get_message_events::v3::Request::backward(room);
        request.from = Some(from.to_owned());
        request.to.clone_from(&span.since);
        request.limit = limit.into();
        let response = self.client.send(request).await.map_err(|error| classify_http(&error))?;
        let events: Vec<_> =
            response.chunk.into_iter().map(matrix_sdk::ruma::serde::Raw::into_json).collect();
        Ok(HistoryPage { events, next: response.end.filter(|end| end != from) })
    }
}
