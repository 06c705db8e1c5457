//! What any user's token can do in rooms.

use std::sync::Arc;

use async_trait::async_trait;
use reqwest::Method;
use serde_json::{Value, json};

use super::http::{Call, Http};
use crate::{
    domain::{RoomId, UserId},
    homeserver::{Result, Session, User},
};

const ROOMS: &str = "_matrix/client/v3/rooms";

pub(super) struct SynapseUser {
    pub http: Arc<Http>,
    pub session: Session,
}

impl SynapseUser {
    async fn send_call(&self, call: Call<'_>) -> Result<()> {
        self.http.send(call.token(&self.session.access_token)).await.map(|_| ())
    }

    async fn membership(&self, what: &'static str, room: &RoomId, verb: &str, body: Value) -> Result<()> {
        let call = Call::new(Method::POST, what, ROOMS, &[room.as_str(), verb]);
        self.send_call(call.about(room.as_str()).slow().body(body)).await
    }
}

#[async_trait]
impl User for SynapseUser {
    async fn join(&self, room: &RoomId, via: &[String]) -> Result<()> {
        let mut call = Call::new(Method::POST, "joining a room", "_matrix/client/v3/join", &[room.as_str()]);
        for server in via {
            // Servers before Matrix 1.12 know the one name, later ones both.
            call = call.query("server_name", server).query("via", server);
        }
        self.send_call(call.about(room.as_str()).slow().body(json!({}))).await
    }

    async fn leave(&self, room: &RoomId) -> Result<()> {
        self.membership("leaving a room", room, "leave", json!({})).await
    }

    async fn invite(&self, room: &RoomId, user: &UserId) -> Result<()> {
        self.membership("inviting a user", room, "invite", json!({ "user_id": user })).await
    }

    async fn unban(&self, room: &RoomId, user: &UserId) -> Result<()> {
        self.membership("lifting a ban", room, "unban", json!({ "user_id": user })).await
    }

    async fn put_state(
        &self,
        room: &RoomId,
        event_type: &str,
        state_key: &str,
        content: &Value,
    ) -> Result<()> {
        let mut call =
            Call::new(Method::PUT, "writing a state event", ROOMS, &[room.as_str(), "state", event_type]);
        if !state_key.is_empty() {
            call = call.then(state_key);
        }
        self.send_call(call.about(room.as_str()).body(content.clone())).await
    }

    async fn send(
        &self,
        room: &RoomId,
        event_type: &str,
        transaction_id: &str,
        content: &Value,
    ) -> Result<()> {
        let call = Call::new(
            Method::PUT,
            "sending an event",
            ROOMS,
            &[room.as_str(), "send", event_type, transaction_id],
        );
        self.send_call(call.about(room.as_str()).body(content.clone())).await
    }

    async fn logout(&self) -> Result<()> {
        let call = Call::new(Method::POST, "logout", "_matrix/client/v3/logout", &[]);
        self.send_call(call.about(self.session.user_id.as_str()).body(json!({}))).await
    }
}
