//! Spans of rooms that sync did not tell: before the bot joined, and the gaps of `limited`
//! timelines. They are written down together with the cursor that jumps over them, and read page
//! by page beside sync; a crash repeats a page at most. Spans take turns, and one that cannot be read waits,
//! longer every time, while the others go on. All rest after a page, and while the homeserver limits the rate.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    domain::{Failure, worker::HistoryProgress},
    homeserver::HomeserverError,
    worker::{
        backoff::Backoff,
        recorder::{Recorder, Stop},
        session::SessionError,
    },
};

/// The list is kept in so many cursors, so that a page does not rewrite all of it.
const BUCKETS: u8 = 64;

/// Cursor that counts the events that were read of the history.
const COUNT: &str = "worker:history";

/// So many failures in a row are worth telling.
pub(super) const LASTING: u32 = 3;

/// A span to read, from its newer end backwards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Span {
    pub(crate) room: String,
    /// Token of the next page.
    pub(crate) from: String,
    /// The newest event that was known before: the span ends there, or where the room begins.
    pub(crate) until: Option<String>,
    /// Where sync stood before: of the events in the span only those that the homeserver received later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) since: Option<String>,
    /// How far it is read: the time of the last event so far, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reached_ms: Option<i64>,
}

impl Span {
    /// What a sync left out between two answers.
    ///
    /// A room's history is in the order of its conversation, and sync in that of reception. An event that
    /// reached the homeserver late, because its server had been cut off, stands in the history before the last
    /// known event, perhaps by far; what the homeserver fetched itself to close a gap of its own, on the
    /// other hand, counts as received before everything else. So both are asked for: the conversation
    /// back to the last known event, and what was received since.
    pub(crate) fn gap(room: &str, from: &str, until: Option<&str>, since: Option<&str>) -> Vec<Self> {
        let span = |until: Option<&str>, since: Option<&str>| Self {
            room: room.to_owned(),
            from: from.to_owned(),
            until: until.map(str::to_owned),
            since: since.map(str::to_owned),
            reached_ms: None,
        };
        let conversation = span(until, None);
        // Without a known event all of the room's history is read.
        let received = until.and(since).map(|since| span(None, Some(since)));
        std::iter::once(conversation).chain(received).collect()
    }

    /// It goes back to before the bot came.
    pub(crate) fn is_whole(&self) -> bool {
        self.until.is_none() && self.since.is_none()
    }
}

/// A span and when it is its turn.
#[derive(Debug)]
struct Waiting {
    span: Span,
    turn: u64,
    backoff: Backoff,
    /// Until when, and why, if it could not be read.
    failed: Option<(Instant, String)>,
}

impl Waiting {
    fn new(span: Span, turn: u64) -> Self {
        Self { span, turn, backoff: Backoff::default(), failed: None }
    }
}

/// The spans that are still to be read, as the cursors say it.
#[derive(Debug, Default)]
pub(crate) struct Spans {
    buckets: BTreeMap<u8, Vec<Waiting>>,
    turns: u64,
    /// Until when none is read.
    rest: Option<Instant>,
    /// Events that were read since the trail began.
    events: u64,
}

impl Spans {
    /// Reads them.
    pub(crate) async fn load(recorder: &Recorder, cancel: &CancellationToken) -> Result<Self, Stop> {
        let mut known = Self::default();
        let events = recorder.cursor(COUNT, cancel).await?;
        known.events = events.and_then(|text| text.parse().ok()).unwrap_or_default();
        for bucket in 0..BUCKETS {
            let name = cursor_name(bucket);
            let text = recorder.cursor(&name, cancel).await?;
            let spans: Vec<Span> = text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
            for span in spans {
                known.add(span);
            }
        }
        Ok(known)
    }

    /// Whether a part of the room's conversation is still to be read.
    pub(crate) fn holds(&self, room: &str) -> bool {
        let mut spans = self.buckets.get(&bucket_of(room)).into_iter().flatten();
        spans.any(|known| known.span.since.is_none() && known.span.room == room)
    }

    /// The room of each such part.
    pub(crate) fn conversations(&self) -> impl Iterator<Item = &str> {
        self.all().filter(|known| known.span.since.is_none()).map(|known| known.span.room.as_str())
    }

    pub(crate) fn len(&self) -> usize {
        self.buckets.values().map(Vec::len).sum()
    }

    /// How far all of them are read.
    pub(crate) fn progress(&self) -> HistoryProgress {
        let rooms: BTreeSet<&str> = self.all().map(|known| known.span.room.as_str()).collect();
        let reached: Option<Vec<i64>> = self.all().map(|known| known.span.reached_ms).collect();
        let reached = reached.and_then(|all| all.into_iter().max());
        HistoryProgress {
            remaining: self.len() as u64,
            rooms: rooms.len() as u64,
            events: self.events,
            reached: reached.and_then(|ms| Timestamp::from_millisecond(ms).ok()),
        }
    }

    /// So many events more were read; the result is the cursor to set in their batch.
    pub(crate) fn count(&mut self, events: usize) -> (String, String) {
        self.events += events as u64;
        (COUNT.to_owned(), self.events.to_string())
    }

    /// Adds a span; the result are the cursors to set in the same batch.
    pub(crate) fn add(&mut self, span: Span) -> (String, String) {
        let bucket = bucket_of(&span.room);
        let turn = self.turn();
        let spans = self.buckets.entry(bucket).or_default();
        if spans.iter().all(|known| known.span != span) {
            spans.push(Waiting::new(span, turn));
        }
        self.cursor(bucket)
    }

    fn turn(&mut self) -> u64 {
        self.turns += 1;
        self.turns
    }

    fn all(&self) -> impl Iterator<Item = &Waiting> {
        self.buckets.values().flatten()
    }

    /// None is read before this time.
    pub(crate) fn rest(&mut self, until: Instant) {
        self.rest = self.rest.max(Some(until));
    }

    /// The span to go on with, if there is one that need not wait.
    pub(crate) fn next(&self, now: Instant) -> Option<Span> {
        if self.rest.is_some_and(|until| now < until) {
            return None;
        }
        let ready = self.all().filter(|known| known.failed.as_ref().is_none_or(|(until, _)| *until <= now));
        ready.min_by_key(|known| known.turn).map(|known| known.span.clone())
    }

    /// So often in a row it could not be read.
    pub(crate) fn failures(&self, span: &Span) -> u32 {
        self.all().find(|known| known.span == *span).map_or(0, |known| known.backoff.failures())
    }

    /// When the next one is to be read, where that is not now.
    pub(crate) fn due(&self) -> Option<Instant> {
        let first = self.all().map(|known| known.failed.as_ref().map(|(until, _)| *until)).min()?;
        first.max(self.rest)
    }

    /// Why one of them cannot be read, if that is so for longer than a moment.
    pub(crate) fn trouble(&self) -> Option<&str> {
        let mut lasting = self.all().filter(|known| known.backoff.failures() >= LASTING);
        lasting.find_map(|known| Some(known.failed.as_ref()?.1.as_str()))
    }

    /// The span could not be read: it waits, and the others have their turns.
    pub(crate) fn postpone(&mut self, span: &Span, error: &SessionError, now: Instant) {
        let turn = self.turn();
        let spans = self.buckets.get_mut(&bucket_of(&span.room));
        if let Some(known) = spans.and_then(|spans| spans.iter_mut().find(|known| known.span == *span)) {
            known.turn = turn;
            let until = now + known.backoff.next(error.retry());
            known.failed = Some((until, error.to_string()));
            // It does not mean this room.
            if is_limit(error) {
                self.rest(until);
            }
        }
    }

    /// A page of the span was read, down to an event of this time: it goes on at `from`, or has ended.
    pub(crate) fn advance(
        &mut self,
        span: &Span,
        from: Option<String>,
        oldest: Option<Timestamp>,
    ) -> (String, String) {
        let bucket = bucket_of(&span.room);
        let turn = self.turn();
        if let Some(spans) = self.buckets.get_mut(&bucket) {
            if let Some(at) = spans.iter().position(|known| known.span == *span) {
                let span = spans.remove(at).span;
                // Senders choose their times: a false one is forgotten with the next page.
                let reached_ms = oldest.map(Timestamp::as_millisecond).or(span.reached_ms);
                spans.extend(from.map(|from| Waiting::new(Span { from, reached_ms, ..span }, turn)));
            }
            if spans.is_empty() {
                self.buckets.remove(&bucket);
            }
        }
        self.cursor(bucket)
    }

    fn cursor(&self, bucket: u8) -> (String, String) {
        let spans: Vec<&Span> =
            self.buckets.get(&bucket).into_iter().flatten().map(|known| &known.span).collect();
        (cursor_name(bucket), serde_json::to_string(&spans).unwrap_or_else(|_| "[]".to_owned()))
    }
}

fn is_limit(error: &SessionError) -> bool {
    matches!(
        error,
        SessionError::RateLimited { .. } | SessionError::Admin(HomeserverError::RateLimited { .. })
    )
}

fn cursor_name(bucket: u8) -> String {
    format!("matrix:history:{bucket}")
}

fn bucket_of(room: &str) -> u8 {
    Sha256::digest(room.as_bytes())[0] % BUCKETS
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn span(room: &str, from: &str) -> Span {
        Span { room: room.into(), from: from.into(), until: None, since: None, reached_ms: None }
    }

    #[test]
    fn spans_of_an_earlier_version_are_read() {
        let span: Span = serde_json::from_str(r#"{"room":"!a","from":"t1","until":"$e"}"#).unwrap();
        assert_eq!((span.until.as_deref(), span.since), (Some("$e"), None));
    }

    #[test]
    fn spans_are_added_advanced_and_ended() {
        let mut spans = Spans::default();
        let (name, value) = spans.add(span("!a", "t1"));
        assert!(name.starts_with("matrix:history:") && value.contains("t1"));
        spans.add(span("!a", "t1"));
        assert_eq!(spans.len(), 1, "the same span is not added twice");
        let first = spans.next(Instant::now()).unwrap();
        let (_, value) = spans.advance(&first, Some("t0".into()), None);
        assert!(value.contains("t0") && !value.contains("t1"));
        let second = spans.next(Instant::now()).unwrap();
        assert_eq!(spans.advance(&second, None, None).1, "[]");
        assert_eq!(spans.len(), 0);
    }

    #[test]
    fn all_rooms_take_turns() {
        let mut spans = Spans::default();
        let rooms: Vec<String> = (0..100).map(|number| format!("!{number}")).collect();
        for room in &rooms {
            spans.add(span(room, "0"));
        }
        for page in 1..4 {
            for room in &rooms {
                let next = spans.next(Instant::now()).unwrap();
                assert_eq!(next.room, *room, "page {page}");
                spans.advance(&next, Some(page.to_string()), None);
            }
        }
    }

    #[test]
    fn what_cannot_be_read_waits_and_holds_up_nobody() {
        let (mut spans, start) = (Spans::default(), Instant::now());
        let at = |ms: u64| start + Duration::from_millis(ms);
        let failing = SessionError::Server { status: 502 };
        spans.add(span("!bad", "1"));
        spans.add(span("!good", "1"));
        spans.postpone(&span("!bad", "1"), &failing, start);
        for page in ["2", "3"] {
            let next = spans.next(at(499)).unwrap();
            assert_eq!(next.room, "!good");
            spans.advance(&next, Some(page.to_owned()), None);
        }
        assert_eq!(spans.trouble(), None, "that happens");
        let bad = ["!bad", "!good"].map(|_| {
            let next = spans.next(at(500)).unwrap();
            spans.advance(&next, Some("4".to_owned()), None);
            next.room
        });
        assert_eq!(bad, ["!bad", "!good"], "it has its turn again");
        assert_eq!((spans.due(), spans.trouble()), (None, None));
        spans.advance(&span("!good", "4"), None, None);
        // Every failure in a row makes it wait longer.
        let waits = [(); 3].map(|()| {
            spans.postpone(&span("!bad", "4"), &failing, start);
            spans.due().unwrap() - start
        });
        assert!(waits.is_sorted_by(|a, b| a < b), "{waits:?}");
        assert_eq!(spans.trouble(), Some("homeserver answered 502"));
    }

    #[test]
    fn all_rest_after_a_page_and_while_the_homeserver_limits_the_rate() {
        let (mut spans, start) = (Spans::default(), Instant::now());
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        spans.add(span("!a", "1"));
        spans.add(span("!b", "1"));
        spans.rest(at(9));
        assert_eq!((spans.next(at(8)), spans.due()), (None, Some(at(9))));
        assert_eq!(spans.next(at(9)).unwrap().room, "!a");
        let limited = || SessionError::RateLimited { retry_after: Some(Duration::from_secs(30)) };
        let shown = || HomeserverError::RateLimited { what: "x", retry_after: Some(Duration::from_secs(30)) };
        for (room, error, now) in [("!a", limited(), 10), ("!b", SessionError::Admin(shown()), 40)] {
            spans.postpone(&span(room, "1"), &error, at(now));
            spans.rest(at(now + 1));
            assert_eq!((spans.next(at(now + 29)), spans.due()), (None, Some(at(now + 30))), "{room}");
        }
        assert!(spans.next(at(70)).is_some());
    }

    #[test]
    fn two_gaps_of_a_room_are_two_spans() {
        let mut spans = Spans::default();
        spans.add(span("!a", "t1"));
        spans.add(span("!a", "t9"));
        assert_eq!(spans.len(), 2);
    }

    #[test]
    fn progress_is_that_of_the_part_that_is_least_far() {
        let (mut spans, at) = (Spans::default(), |second| Timestamp::from_second(second).ok());
        let shown = |spans: &Spans| {
            let HistoryProgress { remaining, rooms, events, reached } = spans.progress();
            (remaining, rooms, events, reached)
        };
        assert_eq!(shown(&spans), (0, 0, 0, None));
        spans.add(span("!a", "t9"));
        spans.add(span("!a", "t5"));
        spans.add(span("!b", "t7"));
        let mut page = |from: Option<&str>, oldest: Option<i64>| {
            let next = spans.next(Instant::now()).unwrap();
            spans.advance(&next, from.map(str::to_owned), oldest.and_then(at));
            let count = spans.count(100);
            (count.1, shown(&spans))
        };
        assert_eq!(page(Some("t8"), Some(90)), ("100".into(), (3, 2, 100, None)));
        assert_eq!(page(Some("t4"), Some(50)).1, (3, 2, 200, None));
        assert_eq!(page(Some("t6"), Some(70)).1, (3, 2, 300, at(90)));
        assert_eq!(page(Some("t3"), Some(95)).1, (3, 2, 400, at(95)), "some clock is wrong");
        assert_eq!(page(None, Some(40)).1, (2, 2, 500, at(95)));
        assert_eq!(page(Some("t2"), None).1, (2, 2, 600, at(95)), "a page without events");
        assert_eq!(page(None, Some(80)).1, (1, 1, 700, at(70)));
        assert_eq!(page(Some("t1"), Some(1)).1, (1, 1, 800, at(1)), "another clock is wrong");
        assert_eq!(page(Some("t0"), Some(60)).1, (1, 1, 900, at(60)), "until the next page");
        assert_eq!(page(None, Some(0)).1, (0, 0, 1000, None));
    }
}
