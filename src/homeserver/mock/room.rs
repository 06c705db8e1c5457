//! A room of the mock: state, memberships, power, and `make_room_admin` with its traps.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::{
    domain::{RoomId, ServerName, UserId},
    homeserver::{HomeserverError, Result, RoomListing, StateEvent},
};

/// What kind of room to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoomKind {
    /// Everybody may join.
    Public,
    /// Invitation needed.
    Private,
    /// Invitation needed, encrypted.
    Encrypted,
    /// A space with invitations.
    Space,
    /// Asks to be let in.
    Knock,
    /// Members of a space may join.
    Restricted,
}

/// A room.
#[derive(Debug, Clone)]
pub struct MockRoom {
    /// The creator's user id.
    pub creator: String,
    /// Version.
    pub version: String,
    /// Was destroyed by power that came before power levels existed.
    pub destroyed: bool,
    /// When the newest event was sent.
    pub last_activity: Option<i64>,
    /// Every event by identifier, the replaced ones too.
    pub events: BTreeMap<String, Value>,
    /// Message events: type, sender, transaction id, content.
    pub messages: Vec<(String, String, String, Value)>,
    /// Everybody of the server has left it: no state of it is shown any more.
    pub is_left: bool,
    /// State and messages in order.
    timeline: Vec<Value>,
    server: ServerName,
    kind: RoomKind,
    state: BTreeMap<(String, String), StateEvent>,
    /// Of this room alone; event identifiers are unique on a server.
    number: u64,
    next_event: u64,
}

impl MockRoom {
    pub(super) fn creator_power_version(version: &str) -> bool {
        version.parse::<u32>().is_ok_and(|number| number >= 12)
    }

    pub(super) fn begin(
        number: u64,
        creator: &UserId,
        server: &ServerName,
        version: &str,
        kind: RoomKind,
    ) -> Self {
        let mut room = Self {
            creator: creator.to_string(),
            version: version.to_owned(),
            destroyed: false,
            last_activity: None,
            events: BTreeMap::new(),
            messages: Vec::new(),
            is_left: false,
            timeline: Vec::new(),
            server: server.clone(),
            kind,
            state: BTreeMap::new(),
            number,
            next_event: 0,
        };
        let mut create = json!({ "room_version": version });
        if kind == RoomKind::Space {
            create["type"] = json!("m.space");
        }
        room.set_state("m.room.create", "", creator.as_str(), create);
        room.set_state("m.room.member", creator.as_str(), creator.as_str(), json!({ "membership": "join" }));
        room
    }

    pub(super) fn finish(&mut self) {
        let creator = self.creator.clone();
        let users = if Self::creator_power_version(&self.version) {
            json!({})
        } else {
            json!({ creator.as_str(): 100 })
        };
        self.set_state("m.room.power_levels", "", &creator, json!({ "users": users, "state_default": 50 }));
        let rule = match self.kind {
            RoomKind::Public => "public",
            RoomKind::Private | RoomKind::Encrypted | RoomKind::Space => "invite",
            RoomKind::Knock => "knock",
            RoomKind::Restricted => "restricted",
        };
        self.set_state("m.room.join_rules", "", &creator, json!({ "join_rule": rule }));
        if self.kind == RoomKind::Encrypted {
            let content = json!({ "algorithm": "m.megolm.v1.aes-sha2" });
            self.set_state("m.room.encryption", "", &creator, content);
        }
    }

    pub(super) fn set_state(&mut self, event_type: &str, key: &str, sender: &str, content: Value) {
        self.next_event += 1;
        let event_id = format!("$e{}-{}", self.number, self.next_event);
        let replaces =
            self.state.get(&(event_type.to_owned(), key.to_owned())).map(|old| old.event_id.clone());
        let mut raw = json!({
            "event_id": event_id, "type": event_type, "state_key": key, "sender": sender, "content": content,
        });
        if let Some(old) = &replaces {
            raw["unsigned"] = json!({ "replaces_state": old });
        }
        self.timeline.push(raw.clone());
        self.events.insert(event_id.clone(), raw);
        let event = StateEvent {
            event_id,
            replaces,
            event_type: event_type.to_owned(),
            state_key: key.to_owned(),
            sender: sender.to_owned(),
            content,
        };
        self.state.insert((event_type.to_owned(), key.to_owned()), event);
    }

    pub(super) fn state_content(&self, event_type: &str, key: &str) -> Option<&Value> {
        self.state.get(&(event_type.to_owned(), key.to_owned())).map(|event| &event.content)
    }

    pub(super) fn post(&mut self, event_type: &str, sender: &str, transaction_id: &str, content: &Value) {
        self.timeline.push(json!({ "type": event_type, "sender": sender, "content": content }));
        let id = transaction_id.to_owned();
        self.messages.push((event_type.to_owned(), sender.to_owned(), id, content.clone()));
    }

    pub(super) fn newest_events(&self, types: &[&str], sender: Option<&UserId>) -> Vec<Value> {
        let is_wanted = |event: &&Value| {
            types.iter().any(|wanted| event["type"] == *wanted)
                && sender.is_none_or(|sender| event["sender"] == sender.as_str())
        };
        self.timeline.iter().rev().filter(is_wanted).cloned().collect()
    }

    pub(super) fn state(&self, event_type: Option<&str>) -> Vec<StateEvent> {
        if self.is_left {
            return Vec::new();
        }
        let wanted = |event: &&StateEvent| event_type.is_none_or(|wanted| wanted == event.event_type);
        self.state.values().filter(wanted).cloned().collect()
    }

    pub(super) fn membership(&self, user: &str) -> &str {
        self.state_content("m.room.member", user)
            .and_then(|content| content["membership"].as_str())
            .unwrap_or("none")
    }

    pub(super) fn is_public(&self) -> bool {
        self.state_content("m.room.join_rules", "").is_some_and(|rules| rules["join_rule"] == "public")
    }

    fn is_creator(&self, user: &str) -> bool {
        Self::creator_power_version(&self.version) && user == self.creator
    }

    fn levels(&self) -> Option<&Map<String, Value>> {
        self.state_content("m.room.power_levels", "")?.as_object()
    }

    fn level(&self, name: &str, default: i64) -> i64 {
        self.levels().and_then(|levels| levels.get(name)?.as_i64()).unwrap_or(default)
    }

    fn explicit(&self, user: &str) -> Option<i64> {
        self.levels()?.get("users")?.get(user)?.as_i64()
    }

    pub(super) fn power(&self, user: &str) -> i64 {
        if self.is_creator(user) {
            return i64::MAX;
        }
        self.explicit(user).unwrap_or_else(|| self.level("users_default", 0))
    }

    pub(super) fn needed_for_state(&self, event_type: &str) -> i64 {
        let own = self.levels().and_then(|levels| levels.get("events")?.get(event_type)?.as_i64());
        own.unwrap_or_else(|| self.level("state_default", 50))
    }

    pub(super) fn needed_for_invite(&self) -> i64 {
        self.level("invite", 0)
    }

    pub(super) fn may_unban(&self, user: &str, banned: &str) -> bool {
        let power = self.power(user);
        self.membership(banned) == "ban"
            && power >= self.level("ban", 50)
            && power >= self.level("kick", 50)
            && power > self.power(banned)
    }

    /// As Synapse does it; see the module.
    pub(super) fn make_admin(&mut self, user: &str, may_invite: bool) -> Result<()> {
        let refuse = |errcode: &str, message: &str, status| HomeserverError::Refused {
            what: "power in a room",
            status,
            errcode: errcode.to_owned(),
            message: message.to_owned(),
        };
        let Some(levels) = self.levels().cloned() else {
            self.destroyed = true;
            let creator = self.creator.clone();
            self.set_state("m.room.power_levels", "", &creator, json!({ "users": { user: 100 } }));
            return Ok(());
        };
        let admin =
            self.local_admin().ok_or_else(|| refuse("M_UNKNOWN", "No local admin user in room", 400))?;
        let level = self.explicit(&admin).unwrap_or(100);
        if self.power(&admin) < self.needed_for_state("m.room.power_levels") {
            let message = "No local admin user in room with power to update power levels.";
            return Err(refuse("M_UNKNOWN", message, 400));
        }
        if self.explicit(user) != Some(level) {
            let mut levels = levels;
            let mut users = levels.get("users").and_then(Value::as_object).cloned().unwrap_or_default();
            users.insert(user.to_owned(), json!(level));
            levels.insert("users".to_owned(), Value::Object(users));
            self.set_state("m.room.power_levels", "", &admin, Value::Object(levels));
        }
        match self.membership(user) {
            "join" | "invite" => Ok(()),
            _ if self.is_public() => Ok(()),
            "ban" => Err(refuse("M_BAD_STATE", "Cannot invite user who was banned", 403)),
            _ if !may_invite => Err(HomeserverError::RateLimited {
                what: "power in a room",
                retry_after: Some(std::time::Duration::from_millis(327_697)),
            }),
            _ => {
                self.set_state("m.room.member", user, &admin, json!({ "membership": "invite" }));
                Ok(())
            }
        }
    }

    fn local_admin(&self) -> Option<String> {
        let joined =
            |user: &&String| user.ends_with(&format!(":{}", self.server)) && self.membership(user) == "join";
        if Self::creator_power_version(&self.version) && joined(&&self.creator) {
            return Some(self.creator.clone());
        }
        let users = self.levels()?.get("users")?.as_object()?;
        let highest = users.keys().filter(joined).max_by_key(|user| self.explicit(user));
        highest.cloned()
    }

    /// The membership events of those who are in it.
    fn joined(&self) -> impl Iterator<Item = &StateEvent> {
        let is_joined = |event: &&StateEvent| {
            event.event_type == "m.room.member" && event.content["membership"] == "join"
        };
        self.state.values().filter(is_joined)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.is_left || self.joined().next().is_none()
    }

    pub(super) fn listing(&self, room_id: &RoomId) -> RoomListing {
        let text = |event_type: &str, field: &str| {
            let content = self.state_content(event_type, "").filter(|_| !self.is_left)?;
            Some(content.get(field)?.as_str()?.to_owned())
        };
        let local = format!(":{}", self.server);
        let is_local = |event: &&StateEvent| event.state_key.ends_with(&local);
        RoomListing {
            room_id: room_id.clone(),
            name: text("m.room.name", "name"),
            creator: self.creator.ends_with(&local).then(|| self.creator.clone()),
            joined_local_members: self.joined().filter(is_local).count() as u64,
            joined_members: if self.is_left { 0 } else { self.joined().count() as u64 },
            version: Some(self.version.clone()),
            join_rules: text("m.room.join_rules", "join_rule"),
            room_type: text("m.room.create", "type"),
            encryption: text("m.room.encryption", "algorithm"),
            state_events: self.state.len() as u64,
        }
    }
}
