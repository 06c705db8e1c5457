//! What each step asks the homeserver for, and in whose name.

use serde_json::{Value, json};

use super::{
    acts::Act,
    carry_out::Context,
    past,
    planner::{FUNCTIONAL_MEMBERS, Step},
    puppet::Deed,
};
use crate::{
    domain::{RoomId, UserId},
    homeserver::{HomeserverError, Result},
};

impl Context {
    pub(super) async fn perform(&self, room: &RoomId, step: &Step, act: &Act) -> Result<()> {
        let bot = &self.identity.bot;
        match step {
            Step::MakeAdmin { .. } => self.admin.make_room_admin(room, bot).await,
            Step::Unban { on_behalf_of } => self.as_person(on_behalf_of, room, Deed::Unban(bot)).await,
            Step::Raise { on_behalf_of, content } => {
                let write = Deed::Write { event_type: "m.room.power_levels", content };
                self.as_person(on_behalf_of, room, write).await
            }
            Step::Invite { on_behalf_of } => self.as_person(on_behalf_of, room, Deed::Invite(bot)).await,
            Step::Recall { user, on_behalf_of: Some(host) } => {
                self.as_person(host, room, Deed::Invite(&parsed(user)?)).await
            }
            Step::Recall { user, on_behalf_of: None } => {
                self.as_bot(room, Deed::Invite(&parsed(user)?)).await
            }
            Step::Return { user } => self.as_person(user, room, Deed::Join { via: &[] }).await,
            Step::Release { user } => self.as_person(user, room, Deed::Leave).await,
            Step::Join { via } => self.as_bot(room, Deed::Join { via }).await,
            Step::HandOver { content, .. } => {
                self.as_bot(room, Deed::Write { event_type: "m.room.power_levels", content }).await
            }
            Step::RefuseInvitation(_) | Step::Leave(_) => self.as_bot(room, Deed::Leave).await,
            Step::MarkFunctional(content) => {
                self.as_bot(room, Deed::Write { event_type: FUNCTIONAL_MEMBERS, content }).await
            }
            Step::PostNotice(notice) => {
                let content = json!({ "msgtype": "m.notice", "body": notice });
                self.as_bot(room, Deed::Post { transaction_id: &act.id, content: &content }).await
            }
        }
    }

    /// Whether the bot has posted its notice since it came: the answer to that may have been lost, or not been noted.
    pub(super) async fn has_posted(&self, room: &RoomId, notice: &str) -> Result<bool> {
        let bot = &self.identity.bot;
        let newest =
            past::newest(&*self.admin, room, &["m.room.member", "m.room.message"], Some(bot)).await?;
        let has_come = |event: &&Value| {
            event["type"] == "m.room.member"
                && event["state_key"] == bot.as_str()
                && event["content"]["membership"] == "join"
                && event["unsigned"]["prev_content"]["membership"] != "join"
        };
        let since = newest.iter().take_while(|event| !has_come(event));
        Ok(since.into_iter().any(|event| event["content"]["body"] == notice))
    }

    async fn as_bot(&self, room: &RoomId, deed: Deed<'_>) -> Result<()> {
        self.puppet.perform(&*self.admin, room, &deed).await
    }

    /// Acts as somebody else, with a token that ends right afterwards.
    async fn as_person(&self, person: &str, room: &RoomId, deed: Deed<'_>) -> Result<()> {
        let person = parsed(person)?;
        let access = self.puppet.access(self.admin.puppet(&person).await?);
        let result = deed.perform(&*access, room).await;
        if let Err(error) = access.logout().await {
            tracing::debug!(error = %error, %person, "the token to act as a person could not be ended");
        }
        result
    }
}

fn parsed(user: &str) -> Result<UserId> {
    UserId::parse(user).map_err(|_| HomeserverError::NotFound { what: user.to_owned() })
}
