//! Spans of rooms that sync did not tell: before the bot joined, and the gaps of `limited`
//! timelines. They are written down together with the cursor that jumps over them, and read page
//! by page between syncs; a crash repeats a page at most.

use std::collections::BTreeMap;

use matrix_sdk::{
    Client,
    ruma::{OwnedRoomId, api::client::message::get_message_events, uint},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use crate::worker::{
    recorder::{Recorder, Stop},
    session::{SessionError, classify_http},
};

/// The list is kept in so many cursors, so that a page does not rewrite all of it.
const BUCKETS: u8 = 64;

/// A span to read, from its newer end backwards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Span {
    pub(crate) room: String,
    /// Token of the next page.
    pub(crate) from: String,
    /// The newest event that was known before: the span ends there, or where the room begins.
    pub(crate) until: Option<String>,
}

/// The spans that are still to be read, as the cursors say it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Spans {
    buckets: BTreeMap<u8, Vec<Span>>,
}

impl Spans {
    /// Reads them.
    pub(crate) async fn load(recorder: &Recorder, cancel: &CancellationToken) -> Result<Self, Stop> {
        let mut buckets = BTreeMap::new();
        for bucket in 0..BUCKETS {
            let name = cursor_name(bucket);
            let text = recorder.cursor(&name, cancel).await?;
            let spans: Vec<Span> = text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
            if !spans.is_empty() {
                buckets.insert(bucket, spans);
            }
        }
        Ok(Self { buckets })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.buckets.values().map(Vec::len).sum()
    }

    /// Adds a span; the result are the cursors to set in the same batch.
    pub(crate) fn add(&mut self, span: Span) -> (String, String) {
        let bucket = bucket_of(&span.room);
        let spans = self.buckets.entry(bucket).or_default();
        if !spans.contains(&span) {
            spans.push(span);
        }
        self.cursor(bucket)
    }

    /// The span to go on with.
    pub(crate) fn next(&self) -> Option<Span> {
        self.buckets.values().flatten().next().cloned()
    }

    /// A page of the span was read: it goes on at `from`, or has ended.
    pub(crate) fn advance(&mut self, span: &Span, from: Option<String>) -> (String, String) {
        let bucket = bucket_of(&span.room);
        if let Some(spans) = self.buckets.get_mut(&bucket) {
            if let Some(at) = spans.iter().position(|known| known == span) {
                let mut known = spans.remove(at);
                if let Some(from) = from {
                    known.from = from;
                    // At the end: rooms take turns.
                    spans.push(known);
                }
            }
            if spans.is_empty() {
                self.buckets.remove(&bucket);
            }
        }
        self.cursor(bucket)
    }

    fn cursor(&self, bucket: u8) -> (String, String) {
        let spans = self.buckets.get(&bucket).map_or(&[][..], Vec::as_slice);
        (cursor_name(bucket), serde_json::to_string(spans).unwrap_or_else(|_| "[]".to_owned()))
    }
}

fn cursor_name(bucket: u8) -> String {
    format!("matrix:history:{bucket}")
}

fn bucket_of(room: &str) -> u8 {
    Sha256::digest(room.as_bytes())[0] % BUCKETS
}

/// One page of a room's history, newest event first.
pub(crate) struct HistoryPage {
    pub(crate) events: Vec<Box<serde_json::value::RawValue>>,
    pub(crate) next: Option<String>,
}

pub(crate) async fn read_page(client: &Client, span: &Span) -> Result<HistoryPage, SessionError> {
    let room = OwnedRoomId::try_from(span.room.as_str())
        .map_err(|_| SessionError::Client { problem: "not a room id".to_owned() })?;
    let mut request = get_message_events::v3::Request::backward(room);
    request.from = Some(span.from.clone());
    request.limit = uint!(100);
    let response = client.send(request).await.map_err(|error| classify_http(&error))?;
    let events: Vec<_> = response.chunk.into_iter().map(matrix_sdk::ruma::serde::Raw::into_json).collect();
    let next = response.end.filter(|end| *end != span.from);
    Ok(HistoryPage { events, next })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(room: &str, from: &str) -> Span {
        Span { room: room.into(), from: from.into(), until: None }
    }

    #[test]
    fn spans_are_added_advanced_and_ended() {
        let mut spans = Spans::default();
        let (name, value) = spans.add(span("!a", "t1"));
        assert!(name.starts_with("matrix:history:") && value.contains("t1"));
        spans.add(span("!a", "t1"));
        assert_eq!(spans.len(), 1, "the same span is not added twice");
        let first = spans.next().unwrap();
        let (_, value) = spans.advance(&first, Some("t0".into()));
        assert!(value.contains("t0") && !value.contains("t1"));
        let second = spans.next().unwrap();
        assert_eq!(spans.advance(&second, None).1, "[]");
        assert!(spans.is_empty());
    }

    #[test]
    fn two_gaps_of_a_room_are_two_spans() {
        let mut spans = Spans::default();
        spans.add(span("!a", "t1"));
        spans.add(span("!a", "t9"));
        assert_eq!(spans.len(), 2);
    }
}
