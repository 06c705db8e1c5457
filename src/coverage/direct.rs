//! Which rooms are direct chats.
//!
//! A chat is direct if one of its people was invited with `is_direct`: the invitation itself, or
//! what the present membership replaced, event by event. That is what the client that made the chat
//! said, and the homeserver keeps it; the number of members alone would take every small room for
//! a direct chat. Who declined or left counts, too: a chat with somebody stays one with them.

use serde_json::Value;

use super::{
    past,
    planner::{DirectChat, FUNCTIONAL_MEMBERS, Identity, content, listed_functional_members},
};
use crate::{
    domain::RoomId,
    homeserver::{Admin, Result, StateEvent},
};

/// A chat with more members than this is not looked at for being direct.
pub(super) const LARGEST_DIRECT_CHAT: usize = 8;
/// So many people who are not in it any more are asked about.
const MOST_FORMER: usize = 8;
/// A membership's history is followed no further than this.
const LONGEST_HISTORY: usize = 12;

/// The direct chat that a room is, if it is one, or if it replaces one.
pub(super) async fn direct_chat(
    admin: &dyn Admin,
    state: &[StateEvent],
    replaces: &[RoomId],
    identity: &Identity,
) -> Result<Option<DirectChat>> {
    let Some(Members { present, former }) = Members::of(state, identity) else { return Ok(None) };
    let mut people = names(present.iter().chain(&former));
    let mut is_direct = any_is_direct(admin, present.iter().chain(former.iter().take(MOST_FORMER))).await?;
    for older in replaces {
        let state = before(admin, older).await?;
        let Some(Members { present, former }) = Members::of(&state, identity) else { continue };
        people.extend(names(present.iter().chain(&former)));
        is_direct =
            is_direct || any_is_direct(admin, present.iter().chain(former.iter().take(MOST_FORMER))).await?;
    }
    let functional = content(state, FUNCTIONAL_MEMBERS, "");
    let marked_by =
        state.iter().find(|event| event.event_type == FUNCTIONAL_MEMBERS && event.state_key.is_empty());
    Ok(is_direct.then(|| DirectChat {
        people,
        functional_members: functional.cloned(),
        marked_by: marked_by.map(|event| event.sender.clone()),
    }))
}

/// The memberships of a room that was replaced, as far as they tell who was in it.
async fn before(admin: &dyn Admin, room: &RoomId) -> Result<Vec<StateEvent>> {
    let shown = past::state(admin, room, None).await?;
    if !shown.is_empty() {
        return Ok(shown);
    }
    past::last_state(admin, room, &["m.room.create", "m.room.member", FUNCTIONAL_MEMBERS]).await
}

/// The memberships of people: not the bot's, nor those of other services.
struct Members<'a> {
    present: Vec<&'a StateEvent>,
    former: Vec<&'a StateEvent>,
}

impl<'a> Members<'a> {
    /// `None` if the room is too large for a direct chat, or no chat.
    fn of(state: &'a [StateEvent], identity: &Identity) -> Option<Self> {
        if content(state, "m.room.create", "").is_some_and(|create| create.get("type").is_some()) {
            return None;
        }
        let service = listed_functional_members(content(state, FUNCTIONAL_MEMBERS, ""));
        let (mut present, mut former) = (Vec::new(), Vec::new());
        let people = state
            .iter()
            .filter(|event| event.event_type == "m.room.member" && event.state_key != identity.bot.as_str())
            .filter(|event| !service.contains(&event.state_key));
        for member in people {
            match member.content["membership"].as_str() {
                Some("join" | "invite") => present.push(member),
                Some("leave" | "ban") => former.push(member),
                _ => {}
            }
        }
        (present.len() <= LARGEST_DIRECT_CHAT).then_some(Self { present, former })
    }
}

fn names<'a>(members: impl Iterator<Item = &'a &'a StateEvent>) -> Vec<String> {
    members.map(|member| member.state_key.clone()).collect()
}

async fn any_is_direct<'a>(
    admin: &dyn Admin,
    members: impl Iterator<Item = &'a &'a StateEvent>,
) -> Result<bool> {
    for member in members {
        if invited_to_direct_chat(admin, member).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a member's first invitation, now or replaced since, said `is_direct`.
async fn invited_to_direct_chat(admin: &dyn Admin, member: &StateEvent) -> Result<bool> {
    if says_direct(&member.content) {
        return Ok(true);
    }
    let mut replaced = member.replaces.clone();
    for _ in 0..LONGEST_HISTORY {
        let Some(event_id) = replaced else { break };
        let Some(event) = admin.fetch_event(&event_id).await? else { break };
        if event.get("content").is_some_and(says_direct) {
            return Ok(true);
        }
        replaced = event
            .get("unsigned")
            .and_then(|unsigned| unsigned.get("replaces_state")?.as_str())
            .map(ToOwned::to_owned);
    }
    Ok(false)
}

fn says_direct(content: &Value) -> bool {
    content.get("is_direct") == Some(&Value::Bool(true))
}
