//! The bot's own session in rooms: a puppet token made by the admin session, whose limits (none)
//! count for it. Made when first needed, made anew when refused, ended when the runner ends.

use std::sync::Arc;

use tokio::sync::Mutex;

use crate::{
    domain::UserId,
    homeserver::{Admin, Connect, HomeserverError, Result, Session, User},
};

pub(super) struct Puppet {
    connect: Arc<dyn Connect>,
    bot: UserId,
    session: Mutex<Option<Session>>,
}

impl Puppet {
    pub(super) fn new(connect: Arc<dyn Connect>, bot: UserId) -> Self {
        Self { connect, bot, session: Mutex::new(None) }
    }

    /// Does something as the bot; with a new token once if the old one is no longer accepted.
    pub(super) async fn act<'a, T, F, Fut>(&'a self, admin: &dyn Admin, act: F) -> Result<T>
    where
        F: Fn(Box<dyn User>) -> Fut + Send,
        Fut: Future<Output = Result<T>> + Send + 'a,
        T: Send,
    {
        let session = self.session(admin).await?;
        match act(self.connect.user(session)).await {
            Err(HomeserverError::CredentialRefused { .. }) => {
                *self.session.lock().await = None;
                let session = self.session(admin).await?;
                act(self.connect.user(session)).await
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
