//! What sync left out, page by page beside it, and how far that is.
//!
//! A page is read and made into records in a task of its own, which may have to wait for the homeserver: what sync tells
//! is recorded meanwhile. The records of a page are written between two answers of sync, with the cursor that moves over
//! the page, and until then its room counts as one of which a part is to be read. A page that is larger than a batch is
//! written in parts, oldest first, with no news between them: of these the first would pass for the newest of the page. The
//! cursor comes with the last; a crash before that repeats the page, and what is there already is skipped.

use std::{future::Future, sync::Arc, time::Duration};

use jiff::Timestamp;
use matrix_sdk::{Client, ruma::RoomId as RumaRoomId};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    Capture, Lookup, Scope, Senders, absence,
    collector::{Arrival, Collector},
    history::Span,
    pages::{HistoryPage, Reader},
    received::{Received, decrypt},
};
use crate::{
    domain::{Failure, RoomId, UserId},
    store::Batch,
    worker::{
        convert::{occurred, read},
        media::Wants,
        ports::Presence,
        recorder::{Recorder, Stop},
        records,
        session::SessionError,
        sources::{Source, Standing},
    },
};

/// No rest after a page is longer.
const LONGEST_REST: Duration = Duration::from_mins(1);

/// What has come of asking for a page.
pub(super) struct Answer {
    span: Span,
    page: Result<Page, NoPage>,
    /// History takes half of the homeserver's time for one request at most: after a page it rests for as long as that
    /// took, with all that was asked about its events.
    rest_until: Instant,
}

/// The records of a page that are to be written.
struct Page {
    batches: Vec<Batch>,
    /// Rooms and sessions of events that miss their key.
    incomplete: Vec<(RoomId, Option<String>)>,
    /// So many events the homeserver has shown.
    events: usize,
    /// When the oldest of them was.
    oldest: Option<Timestamp>,
    /// Where its span goes on.
    next: Option<String>,
}

/// Why there is none.
enum NoPage {
    /// The bot may not read it (any more), for this reason.
    Refused(String),
    /// It cannot be read now.
    Later(SessionError),
    Stopped(Stop),
}

impl From<Stop> for NoPage {
    fn from(stop: Stop) -> Self {
        Self::Stopped(stop)
    }
}

impl From<SessionError> for NoPage {
    fn from(error: SessionError) -> Self {
        Self::Later(error)
    }
}

/// What makes one page.
struct Maker {
    reader: Reader,
    client: Client,
    recorder: Recorder,
    lookup: Lookup,
    senders: Senders,
    presence: Arc<dyn Presence>,
    bot: UserId,
    scope: Scope,
    media: Wants,
    /// So often the page could not be read.
    failures: u32,
    /// The conversation of the room has no other part that is to be read.
    is_only: bool,
}

impl Maker {
    async fn make(&self, span: &Span, page: HistoryPage, cancel: &CancellationToken) -> Result<Page, NoPage> {
        let HistoryPage { events, next } = page;
        let received = self.open(span, &events, cancel).await?;
        let ends = |received: &Received| {
            (received.event_id.is_some() && received.event_id == span.until)
                || (self.scope == Scope::OwnActs && absence::begins(&received.raw, self.bot.as_str()))
        };
        let next = next.filter(|_| !received.iter().any(ends));
        let mut collector = Collector::new(
            &self.recorder,
            &self.lookup,
            self.presence.as_ref(),
            &self.bot,
            self.scope,
            &self.media,
            cancel,
        )
        .keeping();
        collector.is_end = self.is_only && span.since.is_none() && next.is_none();
        // What happened in a gap may not be told anywhere else.
        let arrival = if span.is_whole() { Arrival::Before } else { Arrival::Missed };
        // It comes newest event first; each event is recorded after those that it follows.
        for received in received.iter().rev() {
            collector.take(received, arrival).await?;
        }
        let now = self.recorder.clock().now();
        let oldest = events.last().map(|event| occurred(&read(event.get())).clamped(now));
        let (batches, incomplete) = collector.finish();
        Ok(Page { batches, incomplete, events: events.len(), oldest, next })
    }

    async fn open(
        &self,
        span: &Span,
        events: &[Box<serde_json::value::RawValue>],
        cancel: &CancellationToken,
    ) -> Result<Vec<Received>, NoPage> {
        let room = RumaRoomId::parse(span.room.as_str()).ok();
        let room = room.and_then(|room| self.client.get_room(&room));
        let mut opened = Vec::with_capacity(events.len());
        for event in events {
            let received = match &room {
                Some(room) => {
                    let received = decrypt(room, event, span.is_whole()).await?;
                    let judged = cancel.run_until_cancelled(self.senders.judge(received)).await;
                    judged.ok_or(Stop::Cancelled)?
                }
                None => Received::untried(&span.room, event),
            };
            opened.push(received);
        }
        Ok(opened)
    }
}

impl Capture {
    /// Asks for a page of what sync left out, and makes records of it.
    pub(super) fn read(
        &self,
        span: Span,
        cancel: &CancellationToken,
    ) -> impl Future<Output = Answer> + use<> {
        let client = self.session.client.clone();
        let reader = Reader {
            client: client.clone(),
            inspect: self.inspect.clone(),
            is_offered: self.history_is_offered.clone(),
        };
        let maker = Maker {
            reader,
            client,
            recorder: self.recorder.clone(),
            lookup: self.lookup.apart(),
            senders: self.senders.clone(),
            presence: self.presence.clone(),
            bot: self.bot.clone(),
            scope: self.scope,
            media: self.media.clone(),
            failures: self.spans.failures(&span),
            is_only: self.spans.conversations().filter(|room| *room == span.room).count() <= 1,
        };
        let cancel = cancel.clone();
        async move {
            let asked = Instant::now();
            let page = maker.reader.page(&span, maker.failures).await;
            let page = match page {
                Ok(page) => maker.make(&span, page, &cancel).await,
                Err(SessionError::Refused { status, errcode }) => {
                    Err(NoPage::Refused(format!("the homeserver refuses to show it: {errcode} ({status})")))
                }
                Err(error) => Err(error.into()),
            };
            let rest_until = Instant::now() + asked.elapsed().min(LONGEST_REST);
            Answer { span, page, rest_until }
        }
    }

    /// Records a page; the cursor of its span moves with its last part.
    pub(super) async fn take_page(&mut self, answer: Answer, cancel: &CancellationToken) -> Result<(), Stop> {
        let Answer { span, page, rest_until } = answer;
        self.spans.rest(rest_until);
        let Page { mut batches, incomplete, events, oldest, next } = match page {
            Ok(page) => page,
            Err(NoPage::Stopped(stop)) => return Err(stop),
            // Say so once and go on.
            Err(NoPage::Refused(why)) => return self.give_up(&span, &why, cancel).await,
            Err(NoPage::Later(error)) => {
                self.postpone(&span, &error);
                return Ok(());
            }
        };
        let mut last = batches.pop().unwrap_or_default();
        if !batches.is_empty() {
            // Late keys are looked at meanwhile, too.
            self.lookup.unread.found(&span.room, None);
        }
        for part in batches {
            self.recorder.append(&part, cancel).await?;
        }
        last.cursors.push(self.spans.advance(&span, next, oldest));
        // What a gap has received since is told with its conversation, all but a little.
        let events = if span.since.is_none() { events } else { 0 };
        last.cursors.push(self.spans.count(events));
        self.recorder.append(&last, cancel).await?;
        self.metrics.backfilled(events);
        self.note_read(&span.room);
        self.late_keys.retry(incomplete);
        Ok(())
    }

    /// Has what is recorded of the room from now on know whether all of it is read.
    pub(super) fn note_read(&self, room: &str) {
        if !self.spans.holds(room) {
            self.lookup.unread.end(room);
        }
    }

    fn postpone(&mut self, span: &Span, error: &SessionError) {
        self.metrics.sync_error(error.category());
        tracing::warn!(category = error.category(), %error, "cannot read a room's history");
        self.spans.postpone(span, error, Instant::now());
    }

    async fn give_up(&mut self, span: &Span, why: &str, cancel: &CancellationToken) -> Result<(), Stop> {
        let now = self.recorder.clock().now();
        let draft = records::gap(&self.bot_name, &span.room, &span.from, why, now);
        let cursor = self.spans.advance(span, None, None);
        let batch = Batch { drafts: vec![draft], cursors: vec![cursor], ..Batch::default() };
        self.recorder.append(&batch, cancel).await?;
        self.note_read(&span.room);
        Ok(())
    }

    pub(super) fn say_recording(&self) {
        let progress = self.spans.progress();
        self.board.set(|report| report.history = Some(progress));
        if !self.synced {
            return;
        }
        let history = match (self.spans.trouble(), self.spans.len()) {
            (Some(trouble), _) => Standing::Lagging(format!("waits in some rooms: {trouble}")),
            // The history of a new room is read in a moment; that is no news.
            (None, 0..=20) => Standing::On,
            (None, many) => {
                // Rounded: the condition is not written with every page.
                let many = 10_usize.pow(many.ilog10());
                Standing::Lagging(format!("more than {many} spans of rooms are still to be read"))
            }
        };
        let late_keys = self.late_keys.trouble().map_or(Standing::On, Standing::Lagging);
        self.sources.set(Source::History, history);
        self.sources.set(Source::LateKeys, late_keys);
        self.sources.set(Source::Rooms, Standing::On);
        self.health.ready("sync");
    }
}
