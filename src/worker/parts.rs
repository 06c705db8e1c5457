//! The parts of a worker that follow its homeserver, put together.

use std::{collections::BTreeMap, sync::Arc};

use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::{
    alive::Alive,
    capture::{self, Capture, LateKeys, Lookup, Rooms, Scope, Senders},
    guard::Guard,
    inbox,
    media::{self, Keeper, Wants},
    recorder::Stop,
    session::{Session, Trouble},
    sources::Sources,
    supervisor::{Worker, ended_early},
    survey::{Aside, Survey},
    synapse_module::ModuleWatch,
};
use crate::domain::BotKind;

impl Worker {
    /// Capture and all that belongs to it, with a session, until cancelled or until one of them ends.
    pub(super) async fn run_parts(
        &self,
        session: Session,
        sources: Sources,
        cancel: &CancellationToken,
    ) -> Result<(), Stop> {
        let inner = cancel.child_token();
        let mut parts = JoinSet::new();
        let lookup = Lookup::new(self.recorder.clone(), self.admin.clone(), session.client.clone());
        let senders = Senders::new(session.client.clone(), self.recorder.clone());
        let (rooms, bell) = (Rooms::default(), Arc::new(Notify::new()));
        if let Some(survey) = self.survey(&sources) {
            parts.spawn(survey.run(inner.clone()).in_current_span());
        }
        if let Some(inspect) = self.inspect.clone() {
            let watch = ModuleWatch {
                inspect,
                bot: self.user.clone(),
                instructions: self.instructions.clone(),
                board: self.board.clone(),
                at_least_every: self.pace.survey,
            };
            parts.spawn(watch.run(inner.clone()).in_current_span());
        }
        let saying = inbox::say(self.recorder.clone(), sources.clone(), inner.clone());
        parts.spawn(saying.in_current_span());
        let media = Wants::new(self.instructions.clone());
        if Scope::of(self.bot.kind) == Scope::Everything {
            let keeper = self.keeper(&session, media.clone(), sources.clone())?;
            parts.spawn(keeper.run(inner.clone()).in_current_span());
        }
        let late_keys = LateKeys {
            client: session.client.clone(),
            recorder: self.recorder.clone(),
            lookup: lookup.clone(),
            senders: senders.clone(),
            presence: self.presence.clone(),
            bot: self.user.clone(),
            scope: Scope::of(self.bot.kind),
            media: media.clone(),
            metrics: self.metrics.clone(),
            rooms: rooms.clone(),
        };
        parts.spawn(late_keys.run(inner.clone()).in_current_span());
        let (allow, may_join) = watch::channel(session.trouble.is_none_or(Trouble::may_join));
        // It ends after the others: what capture sees last concerns it, too.
        let others_ended = CancellationToken::new();
        if let Some(cover) = self.cover.clone() {
            cover.acts.load(cancel).await?;
            let book = cover.acts.open_book(cancel).await?;
            let covering = cover.run(
                self.user.clone(),
                book,
                self.instructions.clone(),
                may_join,
                self.board.clone(),
                others_ended.clone(),
            );
            parts.spawn(covering.in_current_span());
        }
        let guard = Guard {
            sessions: self.sessions.clone(),
            session: session.clone(),
            bot: self.bot.clone(),
            recorder: self.recorder.clone(),
            board: self.board.clone(),
            instructions: self.instructions.clone(),
            bell: bell.clone(),
            every: self.pace.examine,
            may_join: allow,
        };
        parts.spawn(guard.run(inner.clone()).in_current_span());
        let capture = Capture::new(capture::Parts {
            session,
            bot: self.user.clone(),
            bot_name: self.bot.clone(),
            recorder: self.recorder.clone(),
            lookup,
            senders,
            presence: self.presence.clone(),
            board: self.board.clone(),
            sources,
            inspect: self.inspect.clone(),
            health: self.health.clone(),
            metrics: self.metrics.clone(),
            late_keys: rooms,
            media,
            bell,
        });
        parts.spawn(capture.run(inner.clone()).in_current_span());
        let mut result = Ok(());
        while let Some(ended) = parts.join_next().await {
            let ended = ended_early(ended, &inner);
            inner.cancel();
            if result.is_ok() {
                result = ended;
            }
            if parts.len() <= 1 {
                others_ended.cancel();
            }
        }
        result
    }

    pub(super) fn sources(&self) -> Sources {
        let scope = Scope::of(self.bot.kind).description();
        Sources::new(scope, self.recorder.shared_clock(), self.board.clone(), self.metrics.clone())
    }

    pub(super) fn alive(&self) -> Alive {
        let mut versions = BTreeMap::from([("worker", env!("CARGO_PKG_VERSION").to_owned())]);
        versions.extend(self.operator_version.clone().map(|version| ("operator", version)));
        Alive {
            bot: self.bot.clone(),
            recorder: self.recorder.clone(),
            board: self.board.clone(),
            versions,
            moment: self.pace.moment,
        }
    }

    fn keeper(&self, session: &Session, wants: Wants, sources: Sources) -> Result<Keeper, Stop> {
        let http = self.sessions.http_client().map_err(|error| Stop::Broken(error.to_string()))?;
        let parts = media::Parts {
            bot: self.bot.clone(),
            recorder: self.recorder.clone(),
            metrics: self.metrics.clone(),
            sources,
            wants,
            bucket: self.bucket.clone(),
        };
        Ok(Keeper::new(parts, session, http))
    }

    /// The trail of an Admin Bot is of administration only.
    fn survey(&self, sources: &Sources) -> Option<Survey> {
        let inspect = self.inspect.clone().filter(|_| self.bot.kind == BotKind::Audit)?;
        Some(Survey {
            inspect,
            admin: self.admin.clone(),
            bot: self.user.clone(),
            recorder: self.recorder.clone(),
            presence: self.presence.clone(),
            sources: sources.clone(),
            aside: Aside::default(),
            at_least_every: self.pace.survey,
        })
    }
}
