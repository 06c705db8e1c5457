//! The bot's own session in rooms: a puppet token made by the admin session, whose limits (none)
//! count for it. Made when first needed, made anew when refused, ended when the runner ends.

use std::sync::Arc;

use serde_json::Value;
use tokio::sync::Mutex;

use crate::{
    domain::{RoomId, UserId},
    homeserver::{Admin, Connect, HomeserverError, Result, Session, User},
};

/// One call in a room as a user of it.
pub(super) enum Deed<'a> {
    Join { via: &'a [String] },
    Leave,
    Invite(&'a UserId),
    Unban(&'a UserId),
    Write { event_type: &'static str, content: &'a Value },
    Post { transaction_id: &'a str, content: &'a Value },
}

impl Deed<'_> {
    pub(super) async fn perform(&self, user: &dyn User, room: &RoomId) -> Result<()> {
        match self {
            Self::Join { via } => user.join(room, via).await,
            Self::Leave => user.leave(room).await,
            Self::Invite(guest) => user.invite(room, guest).await,
            Self::Unban(banned) => user.unban(room, banned).await,
            Self::Write { event_type, content } => user.put_state(room, event_type, "", content).await,
            Self::Post { transaction_id, content } => {
                user.send(room, "m.room.message", transaction_id, content).await
            }
        }
    }
}

pub(super) struct Puppet {
    connect: Arc<dyn Connect>,
    bot: UserId,
    session: Mutex<Option<Session>>,
}

impl Puppet {
    pub(super) fn new(connect: Arc<dyn Connect>, bot: UserId) -> Self {
        Self { connect, bot, session: Mutex::new(None) }
    }

    /// Access with a session.
    pub(super) fn access(&self, session: Session) -> Box<dyn User> {
        self.connect.user(session)
    }

    /// Does something as the bot; with a new token once if the old one is no longer accepted.
    pub(super) async fn perform(&self, admin: &dyn Admin, room: &RoomId, deed: &Deed<'_>) -> Result<()> {
        let access = self.access(self.session(admin).await?);
        match deed.perform(&*access, room).await {
            Err(HomeserverError::CredentialRefused { .. }) => {
                *self.session.lock().await = None;
                let access = self.access(self.session(admin).await?);
                deed.perform(&*access, room).await
            }
            other => other,
        }
    }

    async fn session(&self, admin: &dyn Admin) -> Result<Session> {
        let mut held = self.session.lock().await;
        if let Some(session) = &*held {
            return Ok(session.clone());
        }
        let session = admin.puppet(&self.bot).await?;
        *held = Some(session.clone());
        Ok(session)
    }

    /// Ends the session, if there is one.
    pub(super) async fn end(&self) {
        let Some(session) = self.session.lock().await.take() else { return };
        if let Err(error) = self.connect.user(session).logout().await {
            tracing::debug!(error = %error, "the bot's coverage session could not be ended");
        }
    }
}
