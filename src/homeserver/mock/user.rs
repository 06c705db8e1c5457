//! What any user's token can do, over the world in memory.

use async_trait::async_trait;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::{MockHomeserver, World, access::refused};
use crate::{
    domain::{RoomId, UserId},
    homeserver::{HomeserverError, Result, Session, User},
};

pub(super) struct MockUserAccess {
    pub(super) server: MockHomeserver,
    pub(super) session: Session,
}

impl MockUserAccess {
    async fn act<T: Send>(
        &self,
        call: &'static str,
        subject: &str,
        act: impl FnOnce(&mut World, &str) -> Result<T> + Send,
    ) -> Result<T> {
        let me = self.session.user_id.as_str();
        let checked = |world: &mut World| {
            world.token(&self.session, call)?;
            act(world, me)
        };
        self.server.perform(call, subject, me, checked).await
    }
}

#[async_trait]
impl User for MockUserAccess {
    async fn join(&self, room: &RoomId, via: &[String]) -> Result<()> {
        let act = |world: &mut World, me: &str| {
            let unlimited = world.is_unlimited(&self.session, "join")?;
            let joins = world.joins_of.entry(me.to_owned()).or_default();
            *joins += 1;
            let limited = !unlimited && *joins > 10;
            let room = world.room_mut(room)?;
            if room.is_left && via.is_empty() {
                let message =
                    "Can't join remote room because no servers that are in the room have been provided.";
                return Err(refused("join", 404, "M_UNKNOWN", message));
            }
            match room.membership(me) {
                "join" => return Ok(()),
                "ban" => return Err(refused("join", 403, "M_FORBIDDEN", "You are banned from this room")),
                "invite" => {}
                _ if room.is_public() => {}
                _ => return Err(refused("join", 403, "M_FORBIDDEN", "You are not invited to this room.")),
            }
            if limited {
                let retry_after = Some(std::time::Duration::from_millis(9500));
                return Err(HomeserverError::RateLimited { what: "join", retry_after });
            }
            room.is_left = false;
            room.set_state("m.room.member", me, me, json!({ "membership": "join" }));
            Ok(())
        };
        self.act("join", room.as_str(), act).await
    }

    async fn leave(&self, room: &RoomId) -> Result<()> {
        let act = |world: &mut World, me: &str| {
            let room = world.room_mut(room)?;
            match room.membership(me) {
                "join" | "invite" | "knock" => {
                    room.set_state("m.room.member", me, me, json!({ "membership": "leave" }));
                    Ok(())
                }
                "leave" => Ok(()),
                _ => Err(refused("leave", 403, "M_FORBIDDEN", "You are not in the room")),
            }
        };
        self.act("leave", room.as_str(), act).await
    }

    async fn invite(&self, room: &RoomId, user: &UserId) -> Result<()> {
        let act = |world: &mut World, me: &str| {
            let room = world.room_mut(room)?;
            if room.membership(me) != "join" || room.power(me) < room.needed_for_invite() {
                return Err(refused("invite", 403, "M_FORBIDDEN", "You may not invite"));
            }
            match room.membership(user.as_str()) {
                "ban" => Err(refused("invite", 403, "M_BAD_STATE", "Cannot invite user who was banned")),
                "join" => Err(refused("invite", 403, "M_FORBIDDEN", "is already in the room")),
                _ => {
                    room.set_state("m.room.member", user.as_str(), me, json!({ "membership": "invite" }));
                    Ok(())
                }
            }
        };
        self.act("invite", room.as_str(), act).await
    }

    async fn unban(&self, room: &RoomId, user: &UserId) -> Result<()> {
        let act = |world: &mut World, me: &str| {
            let room = world.room_mut(room)?;
            if room.membership(me) != "join" || !room.may_unban(me, user.as_str()) {
                return Err(refused("unban", 403, "M_FORBIDDEN", "You may not unban"));
            }
            room.set_state("m.room.member", user.as_str(), me, json!({ "membership": "leave" }));
            Ok(())
        };
        self.act("unban", room.as_str(), act).await
    }

    async fn put_state(
        &self,
        room: &RoomId,
        event_type: &str,
        state_key: &str,
        content: &Value,
    ) -> Result<()> {
        let act = |world: &mut World, me: &str| {
            let room = world.room_mut(room)?;
            if room.membership(me) != "join" || room.power(me) < room.needed_for_state(event_type) {
                return Err(refused("state", 403, "M_FORBIDDEN", "You don't have permission to post that"));
            }
            room.set_state(event_type, state_key, me, content.clone());
            Ok(())
        };
        self.act("put_state", room.as_str(), act).await
    }

    async fn send(
        &self,
        room: &RoomId,
        event_type: &str,
        transaction_id: &str,
        content: &Value,
    ) -> Result<()> {
        let act = |world: &mut World, me: &str| {
            let room = world.room_mut(room)?;
            if room.membership(me) != "join" {
                return Err(refused("send", 403, "M_FORBIDDEN", "You are not in the room"));
            }
            let repeated = |sent: &(String, String, String, Value)| sent.1 == me && sent.2 == transaction_id;
            if !room.messages.iter().any(repeated) {
                room.post(event_type, me, transaction_id, content);
            }
            Ok(())
        };
        self.act("send", room.as_str(), act).await
    }

    async fn logout(&self) -> Result<()> {
        let act = |world: &mut World, _: &str| {
            world.tokens.remove(self.session.access_token.expose_secret());
            Ok(())
        };
        self.act("logout", "", act).await
    }
}
