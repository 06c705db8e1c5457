//! Reads the facts of one room, as few as decide.
//!
//! A big room that the bot is in with full power needs its power levels only, unless the bot is to leave it. Every
//! other room is read whole, once per change.
//!
//! A chat is direct if one of its people was invited with `is_direct`: the invitation itself, or
//! what the present membership replaced, event by event. That is what the client that made the chat
//! said, and the homeserver keeps it; the number of members alone would take every small room for
//! a direct chat.

use serde_json::Value;

use super::planner::{
    self, Candidate, DirectChat, FULL_POWER, FUNCTIONAL_MEMBERS, Identity, Membership, Power, Recalled,
    RoomFacts, Succession, content, listed_functional_members, read_power,
};
use crate::{
    domain::{
        RoomId, UserId,
        selection::{Leave, RoomSelection},
    },
    homeserver::{Admin, Result, RoomListing, StateEvent},
};

/// A chat with more members than this is not looked at for being direct.
const LARGEST_DIRECT_CHAT: u64 = 8;
/// A membership's history is followed no further than this.
const LONGEST_HISTORY: usize = 12;
/// So many accounts are looked at for somebody who is an admin after the bot.
const MOST_CANDIDATES: usize = 20;
/// So many servers are asked to join a room by.
const MOST_SERVERS: usize = 5;

/// Identifiers of the events that `make_room_admin` replaces; another one means that it was sent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Marks {
    /// Current `m.room.power_levels`, with its sender.
    pub power_levels: Option<(String, String)>,
    /// Current membership event of the bot, with its sender.
    pub membership: Option<(String, String)>,
    /// Current membership event of whoever is brought back, with its sender.
    pub recalled: Option<(String, String)>,
}

/// What the runner knows besides the room's own state.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// The bot is among its joined members.
    pub is_joined: bool,
    /// The room is an excluded space or below one.
    pub in_excluded_space: bool,
    /// Milliseconds since 1970, to judge inactivity.
    pub now_ms: i64,
    /// Who was brought back, or is about to be.
    pub recalled: Option<String>,
    /// People in whose name nothing could be done here.
    pub unhelpful: Vec<String>,
}

/// What a look at a room shows.
#[derive(Debug)]
pub struct Seen {
    /// The facts, without the memory of the caller, and without who is an admin after the bot.
    pub facts: RoomFacts,
    /// Identifiers of the events that were seen.
    pub marks: Marks,
    /// The state, as far as it was read.
    state: Vec<StateEvent>,
    /// It is the whole state.
    is_whole: bool,
}

impl Seen {
    /// How many state events the room has, if all were read.
    pub fn state_events(&self) -> Option<u64> {
        self.is_whole.then_some(self.state.len() as u64)
    }
}

/// Reads the facts of a room. The memory of the caller (`was_functional_member`, `owes_notice`,
/// `repeated`) is not set.
pub async fn gather(
    admin: &dyn Admin,
    listing: &RoomListing,
    selection: &RoomSelection,
    identity: &Identity,
    around: &Surroundings,
) -> Result<Seen> {
    let room = &listing.room_id;
    let stays = !matches!(selection.leave, Leave::Everything { .. });
    if stays && around.is_joined && around.recalled.is_none() && listing.joined_members > LARGEST_DIRECT_CHAT
    {
        let state = admin.room_state(room, Some("m.room.power_levels")).await?;
        let power = read_power(&state, identity, &around.unhelpful);
        if matches!(&power, Power::Known(known) if known.bot >= FULL_POWER) {
            let has_local_members = listing.joined_local_members > 1;
            let facts = base(listing, &state, power, Membership::Joined, has_local_members, identity, around);
            if !planner::leaves(&facts, selection, identity) {
                let marks = marks(&state, identity, around);
                return Ok(Seen { facts, marks, state, is_whole: false });
            }
        }
    }
    let state = admin.room_state(room, None).await?;
    let power = read_power(&state, identity, &around.unhelpful);
    let membership = membership(&state, identity.bot.as_str());
    let has_local_members = has_local_members(&state, identity);
    let mut facts = base(listing, &state, power, membership, has_local_members, identity, around);
    if stays && matches!(facts.power, Power::Known(_)) {
        facts.direct = direct_chat(admin, &state, identity).await?;
        facts.is_inactive =
            membership != Membership::Joined && is_inactive(admin, room, selection, around.now_ms).await?;
    }
    Ok(Seen { facts, marks: marks(&state, identity, around), state, is_whole: true })
}

/// Asks who is an admin of the room after the bot, if the bot is about to leave it.
pub async fn ask_for_heir(
    admin: &dyn Admin,
    seen: &mut Seen,
    selection: &RoomSelection,
    identity: &Identity,
) -> Result<()> {
    if planner::leaves(&seen.facts, selection, identity) {
        seen.facts.succession = succession(admin, &seen.state, identity).await?;
    }
    Ok(())
}

/// Who is an admin of a room after the bot: somebody whose account can be used by a person.
async fn succession(admin: &dyn Admin, state: &[StateEvent], identity: &Identity) -> Result<Succession> {
    let (mut passed_over, mut beside) = (Vec::new(), None);
    while passed_over.len() < MOST_CANDIDATES
        && let Some(candidate) = planner::candidate(state, identity, &passed_over)
    {
        let user = match &candidate {
            Candidate::Heir(_) if beside.is_some() => break,
            Candidate::Heir(heir) => heir.user.clone(),
            Candidate::Admin(user) => user.clone(),
        };
        let account = match UserId::parse(&user) {
            Ok(user) => admin.account(&user).await?.filter(|account| !account.deactivated),
            Err(_) => None,
        };
        match (candidate, account) {
            (Candidate::Admin(other), Some(account)) if account.is_program() => {
                let goes_first = other.as_str() < identity.bot.as_str();
                beside = Some(goes_first || beside == Some(true));
            }
            // Whoever is locked out is so for a while.
            (Candidate::Admin(_), Some(_)) => return Ok(Succession::Settled),
            (Candidate::Heir(heir), Some(account)) if account.is_usable() => {
                return Ok(Succession::Heir(heir));
            }
            _ => {}
        }
        passed_over.push(user);
    }
    Ok(beside.map_or(Succession::Settled, |goes_first| Succession::Bot { goes_first }))
}

fn base(
    listing: &RoomListing,
    state: &[StateEvent],
    power: Power,
    membership: Membership,
    has_local_members: bool,
    identity: &Identity,
    around: &Surroundings,
) -> RoomFacts {
    let create = state.iter().find(|event| event.event_type == "m.room.create");
    let rule = match content(state, "m.room.join_rules", "") {
        Some(rules) => rules.get("join_rule").and_then(Value::as_str),
        None => listing.join_rules.as_deref(),
    };
    RoomFacts {
        room_id: listing.room_id.clone(),
        creator: create.map(|create| create.sender.clone()).or_else(|| listing.creator.clone()),
        is_public: rule == Some("public"),
        has_local_members,
        via: if has_local_members { Vec::new() } else { other_servers(state, identity) },
        membership,
        power,
        direct: None,
        in_excluded_space: around.in_excluded_space,
        is_inactive: false,
        was_functional_member: false,
        recalled: around
            .recalled
            .as_ref()
            .map(|user| Recalled { user: user.clone(), membership: self::membership(state, user) }),
        owes_notice: false,
        succession: Succession::Settled,
        repeated: None,
    }
}

/// Whether anybody of this homeserver is in the room besides the bot. The list tells that of a new room too late.
fn has_local_members(state: &[StateEvent], identity: &Identity) -> bool {
    joined(state).any(|member| member != identity.bot.as_str() && identity.is_local(member))
}

/// Who is in the room.
fn joined(state: &[StateEvent]) -> impl Iterator<Item = &str> {
    let is_in =
        |event: &&StateEvent| event.event_type == "m.room.member" && event.content["membership"] == "join";
    state.iter().filter(is_in).map(|event| event.state_key.as_str())
}

/// Servers by which a room can be joined that nobody of this one is in.
fn other_servers(state: &[StateEvent], identity: &Identity) -> Vec<String> {
    let mut servers: Vec<String> = joined(state)
        .filter_map(|member| Some(member.split_once(':')?.1.to_owned()))
        .filter(|server| server != identity.server.as_str())
        .collect();
    servers.sort_unstable();
    servers.dedup();
    servers.truncate(MOST_SERVERS);
    servers
}

fn membership(state: &[StateEvent], user: &str) -> Membership {
    match planner::membership(state, user) {
        Some("join") => Membership::Joined,
        Some("invite") => Membership::Invited,
        Some("ban") => Membership::Banned,
        _ => Membership::Outside,
    }
}

fn marks(state: &[StateEvent], identity: &Identity, around: &Surroundings) -> Marks {
    let mark = |event_type: &str, key: &str| {
        let event = state.iter().find(|event| event.event_type == event_type && event.state_key == key)?;
        Some((event.event_id.clone(), event.sender.clone()))
    };
    Marks {
        power_levels: mark("m.room.power_levels", ""),
        membership: mark("m.room.member", identity.bot.as_str()),
        recalled: around.recalled.as_ref().and_then(|user| mark("m.room.member", user)),
    }
}

async fn is_inactive(
    admin: &dyn Admin,
    room: &RoomId,
    selection: &RoomSelection,
    now_ms: i64,
) -> Result<bool> {
    let Some(limit) = selection.minimum_last_active else { return Ok(false) };
    let limit = i64::try_from(limit.as_millis()).unwrap_or(i64::MAX);
    let newest = admin.last_activity(room).await?;
    Ok(newest.is_none_or(|newest| now_ms.saturating_sub(newest) > limit))
}

/// The direct chat that a room is, if it is one.
async fn direct_chat(
    admin: &dyn Admin,
    state: &[StateEvent],
    identity: &Identity,
) -> Result<Option<DirectChat>> {
    let create = content(state, "m.room.create", "");
    if create.is_some_and(|create| create.get("type").is_some()) {
        return Ok(None);
    }
    let functional = content(state, FUNCTIONAL_MEMBERS, "");
    let service = listed_functional_members(functional);
    let people: Vec<&StateEvent> = state
        .iter()
        .filter(|event| event.event_type == "m.room.member" && event.state_key != identity.bot.as_str())
        .filter(|event| matches!(event.content["membership"].as_str(), Some("join" | "invite")))
        .filter(|event| !service.contains(&event.state_key))
        .collect();
    if people.len() as u64 > LARGEST_DIRECT_CHAT {
        return Ok(None);
    }
    for member in &people {
        if invited_to_direct_chat(admin, member).await? {
            return Ok(Some(DirectChat {
                people: people.iter().map(|member| member.state_key.clone()).collect(),
                functional_members: functional.cloned(),
                marked_by: state
                    .iter()
                    .find(|event| event.event_type == FUNCTIONAL_MEMBERS && event.state_key.is_empty())
                    .map(|event| event.sender.clone()),
            }));
        }
    }
    Ok(None)
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::ServerName;

    #[test]
    fn only_people_of_this_homeserver_who_are_in_the_room_count_as_being_there() {
        let identity = Identity {
            bot: UserId::parse("@bot:here.org").unwrap(),
            server: ServerName::parse("here.org").unwrap(),
        };
        let member = |user: &str, membership: &str| StateEvent {
            event_type: "m.room.member".to_owned(),
            state_key: user.to_owned(),
            sender: user.to_owned(),
            event_id: format!("${user}"),
            content: json!({"membership": membership}),
            replaces: None,
        };
        let nobody = [
            member("@bot:here.org", "join"),
            member("@alice:there.org", "join"),
            member("@bob:here.org", "leave"),
            member("@carol:here.org", "invite"),
        ];
        assert!(!has_local_members(&nobody, &identity));
        assert!(has_local_members(&[member("@bob:here.org", "join")], &identity));
        assert_eq!(other_servers(&nobody, &identity), ["there.org"]);
    }
}
