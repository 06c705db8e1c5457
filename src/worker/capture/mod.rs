//! Everything that happens in the bot's rooms, into the trail: exactly once, whatever crashes.

mod absence;
mod backfill;
mod ciphertext;
mod collector;
mod filter;
mod history;
mod homeserver;
mod late_keys;
mod lookup;
mod pages;
mod received;
mod resets;
mod senders;
mod sync;
mod unread;

use std::sync::{Arc, atomic::AtomicBool};

pub(crate) use self::{
    filter::filter as sync_filter,
    late_keys::{LateKeys, Rooms},
    lookup::Lookup,
    senders::Senders,
    sync::{CURSOR, last_event_cursor},
};
use super::{
    board::Board, media::Wants, metrics::Metrics, ports::Presence, recorder::Recorder, session::Session,
    sources::Sources,
};
use crate::{
    domain::{BotKind, BotName, UserId},
    homeserver::Inspect,
    telemetry::health::Health,
};

/// What is recorded of what the bot sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// All of it: the Audit Bot.
    Everything,
    /// What the bot does, and what is done to it: the Admin Bot, whose trail is of administration.
    OwnActs,
}

impl Scope {
    pub(crate) fn of(kind: BotKind) -> Self {
        match kind {
            BotKind::Audit => Self::Everything,
            BotKind::Admin => Self::OwnActs,
        }
    }

    pub(crate) fn description(self) -> &'static str {
        match self {
            Self::Everything => "records everything in the bot's rooms",
            Self::OwnActs => "records administrative acts",
        }
    }
}

/// The part of the worker that follows /sync.
pub(crate) struct Capture {
    pub(crate) session: Session,
    pub(crate) bot: UserId,
    pub(crate) bot_name: BotName,
    pub(crate) scope: Scope,
    pub(crate) recorder: Recorder,
    pub(crate) lookup: Lookup,
    pub(crate) senders: Senders,
    pub(crate) presence: Arc<dyn Presence>,
    pub(crate) board: Board,
    pub(crate) sources: Sources,
    pub(crate) inspect: Option<Arc<dyn Inspect>>,
    pub(crate) health: Health,
    pub(crate) metrics: Metrics,
    pub(crate) late_keys: Rooms,
    pub(crate) media: Wants,
    /// Rung when the account data shows a change of the identity.
    pub(crate) bell: Arc<tokio::sync::Notify>,
    spans: history::Spans,
    /// The homeserver has shown an administrator a room's history.
    history_is_offered: Arc<AtomicBool>,
    /// The last sync was recorded.
    synced: bool,
}

/// What [`Capture::new`] needs.
pub(crate) struct Parts {
    pub(crate) session: Session,
    pub(crate) bot: UserId,
    pub(crate) bot_name: BotName,
    pub(crate) recorder: Recorder,
    pub(crate) lookup: Lookup,
    pub(crate) senders: Senders,
    pub(crate) presence: Arc<dyn Presence>,
    pub(crate) board: Board,
    pub(crate) sources: Sources,
    pub(crate) inspect: Option<Arc<dyn Inspect>>,
    pub(crate) health: Health,
    pub(crate) metrics: Metrics,
    pub(crate) late_keys: Rooms,
    pub(crate) media: Wants,
    /// Rung when the account data shows a change of the identity.
    pub(crate) bell: Arc<tokio::sync::Notify>,
}

impl Capture {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts {
            session,
            bot,
            bot_name,
            recorder,
            lookup,
            senders,
            presence,
            board,
            sources,
            inspect,
            health,
            metrics,
            late_keys,
            media,
            bell,
        } = parts;
        let scope = Scope::of(bot_name.kind);
        let spans = history::Spans::default();
        Self {
            session,
            bot,
            bot_name,
            scope,
            recorder,
            lookup,
            senders,
            presence,
            board,
            sources,
            inspect,
            health,
            metrics,
            late_keys,
            media,
            bell,
            spans,
            history_is_offered: Arc::default(),
            synced: false,
        }
    }
}
