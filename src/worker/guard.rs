//! Looks after the identity while the bot runs: is it still as it was made, and has a person decided
//! to have it made anew?

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::{
    board::Board,
    ports::InstructionsReceiver,
    recorder::{Recorder, Stop},
    records,
    session::{Session, Sessions, Trouble},
};
use crate::{
    domain::{BotName, Failure, record::RecordDraft, worker::Check},
    store::Batch,
};

/// Cursor that keeps the identity that is ours: the witness that a person signed in as the bot cannot reach.
pub(crate) const IDENTITY_CURSOR: &str = "worker:identity";

/// The part of the worker that does it.
pub(crate) struct Guard {
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) session: Session,
    pub(crate) bot: BotName,
    pub(crate) recorder: Recorder,
    pub(crate) board: Board,
    pub(crate) instructions: InstructionsReceiver,
    /// Rung when sync shows a change of account data that matters.
    pub(crate) bell: Arc<Notify>,
    pub(crate) every: Duration,
    /// Tells coverage whether rooms may be joined.
    pub(crate) may_join: watch::Sender<bool>,
}

impl Guard {
    /// Runs until cancelled, or until this process must end.
    pub(crate) async fn run(mut self, cancel: CancellationToken) -> Result<(), Stop> {
        match self.watch(&cancel).await {
            Err(Stop::Cancelled) => Ok(()),
            other => other,
        }
    }

    async fn watch(&mut self, cancel: &CancellationToken) -> Result<(), Stop> {
        let mut identities = std::pin::pin!(own_identity_changes(&self.session));
        self.repair_if_asked(cancel).await?;
        loop {
            tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                () = tokio::time::sleep(self.every) => {}
                () = self.bell.notified() => {}
                Some(()) = identities.next() => {}
                changed = self.instructions.changed() => {
                    if changed.is_err() {
                        cancel.cancelled().await;
                        return Ok(());
                    }
                    self.repair_if_asked(cancel).await?;
                    continue;
                }
            }
            self.examine(cancel).await?;
            self.repair_if_asked(cancel).await?;
        }
    }

    async fn examine(&mut self, cancel: &CancellationToken) -> Result<(), Stop> {
        let found = tokio::select! {
            found = self.sessions.examine(&self.session) => found,
            () = cancel.cancelled() => return Err(Stop::Cancelled),
        };
        match found {
            Ok(trouble) => self.note(trouble, cancel).await,
            Err(error) => {
                // Not being able to look is no trouble; sync says what is wrong with the homeserver.
                tracing::warn!(category = error.category(), %error, "cannot examine the identity");
                if error.ends_session() {
                    self.board.set(|report| report.encryption = error.check());
                }
                Ok(())
            }
        }
    }

    async fn note(&mut self, trouble: Option<Trouble>, cancel: &CancellationToken) -> Result<(), Stop> {
        self.board.set(|report| report.encryption = check(&self.bot, trouble));
        self.may_join.send_replace(trouble.is_none_or(Trouble::may_join));
        if trouble == self.session.trouble {
            return Ok(());
        }
        tracing::warn!(before = ?self.session.trouble, after = ?trouble, "the identity changed");
        let name = |trouble: Option<Trouble>| trouble.map(Trouble::reason);
        let now = self.recorder.clock().now();
        let draft = records::identity_state(&self.bot, name(self.session.trouble), name(trouble), now);
        self.session.trouble = trouble;
        self.append(draft, None, cancel).await
    }

    /// Every value of the annotation is good for one repair. It is recorded before anything is done;
    /// what was recorded but not finished is gone on with.
    async fn repair_if_asked(&mut self, cancel: &CancellationToken) -> Result<(), Stop> {
        let Some(value) = self.instructions.borrow().repair_encryption.clone() else { return Ok(()) };
        let now = self.recorder.clock().now();
        let why = self
            .session
            .trouble
            .map_or_else(|| "nothing to repair".to_owned(), |trouble| trouble.reason().to_owned());
        let asked = records::repair_asked(&self.bot, &value, &why, now);
        let earlier = self.find(&asked.source_id, cancel).await?;
        let Some(_) = self.session.trouble else {
            if earlier.is_none() {
                self.append(asked, None, cancel).await?;
            }
            return Ok(());
        };
        let done = records::repaired(&self.bot, &value, &self.session.identity, &self.session.identity, now);
        let used = earlier.is_some_and(|draft| draft.text.as_deref() == Some("nothing to repair"));
        if used || self.find(&done.source_id, cancel).await?.is_some() {
            return Ok(());
        }
        self.append(asked, None, cancel).await?;
        match self.sessions.repair(&self.session).await {
            Ok(session) => {
                let draft =
                    records::repaired(&self.bot, &value, &self.session.identity, &session.identity, now);
                let facts = serde_json::to_string(&session.identity).ok();
                self.append(draft, facts, cancel).await?;
                self.session.identity = session.identity;
                tracing::info!("made the identity anew, as a person decided");
                self.note(None, cancel).await
            }
            Err(error) => {
                tracing::warn!(category = error.category(), %error, "cannot repair the identity");
                self.board.set(|report| report.encryption = error.check());
                Ok(())
            }
        }
    }

    async fn find(&self, source: &str, cancel: &CancellationToken) -> Result<Option<RecordDraft>, Stop> {
        let found = self.recorder.find_by_source(source, cancel).await?;
        Ok(found)
    }

    async fn append(
        &self,
        draft: RecordDraft,
        identity: Option<String>,
        cancel: &CancellationToken,
    ) -> Result<(), Stop> {
        let cursors = identity.map(|facts| (IDENTITY_CURSOR.to_owned(), facts)).into_iter().collect();
        let batch = Batch { drafts: vec![draft], cursors, ..Batch::default() };
        self.recorder.append(&batch, cancel).await.map(drop)
    }
}

/// The condition `EncryptionReady` of a session.
pub(crate) fn check(bot: &BotName, trouble: Option<Trouble>) -> Check {
    let slug = bot.kind.slug();
    let base = if bot.name == slug { bot.name.clone() } else { format!("{slug}-{}", bot.name) };
    trouble.map_or_else(
        || {
            Check::ok(
                "Ready",
                "the device is cross-signed, keys are backed up, and the phrase in the Secret opens them",
            )
        },
        |trouble| trouble.check(&format!("{base}-backup-phrase")),
    )
}

/// Fires when the homeserver shows other keys of the bot itself.
fn own_identity_changes(session: &Session) -> impl futures::Stream<Item = ()> + use<> {
    let client = session.client.clone();
    futures::stream::once(async move {
        let own = client.user_id().map(ToOwned::to_owned);
        let updates = client.encryption().user_identities_stream().await.ok();
        futures::stream::iter(updates).flatten().filter_map(move |updates| {
            let about_us = own
                .as_ref()
                .is_some_and(|own| updates.new.contains_key(own) || updates.changed.contains_key(own));
            std::future::ready(about_us.then_some(()))
        })
    })
    .flatten()
}
