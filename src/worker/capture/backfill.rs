//! What sync left out, page by page beside it, and how far that is.

use matrix_sdk::ruma::RoomId as RumaRoomId;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    Capture, Scope, absence,
    collector::{Arrival, Collector},
    history::Span,
    pages::HistoryPage,
    received::{Received, decrypt},
};
use crate::{
    domain::Failure,
    worker::{
        convert::{occurred, read},
        recorder::Stop,
        records,
        session::SessionError,
        sources::{Source, Standing},
    },
};

impl Capture {
    /// Records one page of what sync left out. It comes newest event first; each event is recorded after those that
    /// it follows.
    pub(super) async fn take_page(
        &mut self,
        span: &Span,
        page: Result<HistoryPage, SessionError>,
        cancel: &CancellationToken,
    ) -> Result<(), Stop> {
        let page = match page {
            Ok(page) => page,
            Err(SessionError::Refused { status, errcode }) => {
                // The bot may not read it (any more): say so once and go on.
                let why = format!("the homeserver refuses to show it: {errcode} ({status})");
                return self.give_up(span, &why, cancel).await;
            }
            Err(error) => {
                self.postpone(span, &error);
                return Ok(());
            }
        };
        let room = RumaRoomId::parse(span.room.as_str()).ok();
        let room = room.and_then(|room| self.session.client.get_room(&room));
        let (recorder, lookup, presence) =
            (self.recorder.clone(), self.lookup.clone(), self.presence.clone());
        let bot = self.bot.clone();
        let media = self.media.clone();
        let mut collector =
            Collector::new(&recorder, &lookup, presence.as_ref(), &bot, self.scope, &media, cancel);
        let (mut reached, mut events) = (false, Vec::with_capacity(page.events.len()));
        // What happened in a gap may not be told anywhere else.
        let arrival = if span.is_whole() { Arrival::Before } else { Arrival::Missed };
        self.metrics.backfilled(page.events.len());
        for event in &page.events {
            let received = match &room {
                Some(room) => match decrypt(room, event, span.is_whole()).await {
                    Ok(received) => self.judge(received, cancel).await?,
                    Err(error) => {
                        self.postpone(span, &error);
                        return Ok(());
                    }
                },
                None => Received::untried(&span.room, event),
            };
            reached |= received.event_id.is_some() && received.event_id == span.until;
            reached |= self.scope == Scope::OwnActs && absence::begins(&received.raw, self.bot.as_str());
            events.push(received);
        }
        let next = page.next.filter(|_| !reached);
        let now = recorder.clock().now();
        let oldest = page.events.last().map(|event| occurred(&read(event.get())).clamped(now));
        let (name, value) = self.spans.advance(span, next, oldest);
        self.note_read(&span.room);
        for received in events.iter().rev() {
            collector.take(received, arrival).await?;
        }
        collector.cursor(name, value);
        let (name, value) = self.spans.count(page.events.len());
        collector.cursor(name, value);
        collector.flush().await?;
        self.late_keys.retry(collector.incomplete);
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
        self.note_read(&span.room);
        let batch = crate::store::Batch { drafts: vec![draft], cursors: vec![cursor], ..Default::default() };
        self.recorder.append(&batch, cancel).await.map(drop)
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
