//! Reads the facts of one room, as few as decide.
//!
//! A big room that the bot is in with full power needs its power levels only, unless the bot is to leave it. Every
//! other room is read whole, once per change.

use std::{collections::HashSet, sync::Arc};

use serde_json::Value;

use super::{
    direct::{LARGEST_DIRECT_CHAT, direct_chat},
    marks::Marks,
    past,
    planner::{
        self, Candidate, FULL_POWER, Identity, Membership, Power, Recalled, RoomFacts, Succession, content,
        read_power,
    },
    spaces,
};
use crate::{
    domain::{
        RoomId, UserId,
        selection::{Leave, RoomSelection},
    },
    homeserver::{Admin, Result, RoomListing, StateEvent},
};

/// So many accounts are looked at for somebody who is an admin after the bot.
const MOST_CANDIDATES: usize = 20;
/// So many servers are asked to join a room by.
const MOST_SERVERS: usize = 5;
/// So often a new room that has only its creator is looked at before it is no direct chat.
const LOOKS_FOR_INVITATIONS: u32 = 3;
/// So many spaces are asked whether a room is in them that says so.
const MOST_CLAIMS: usize = 20;

/// What the runner knows besides the room's own state.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// The bot is among its joined members.
    pub is_joined: bool,
    /// It is new, so that what belongs to its creation may be missing, and was looked at so often.
    pub new_for: Option<u32>,
    /// Excluded spaces and the rooms below them.
    pub excluded: Arc<HashSet<RoomId>>,
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
    /// The events that acts replace.
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
    let stays = !matches!(selection.leave, Leave::Everything { .. });
    let is_large = listing.joined_members > LARGEST_DIRECT_CHAT as u64;
    if stays
        && around.is_joined
        && around.recalled.is_none()
        && is_large
        && let Some(seen) = glance(admin, listing, selection, identity, around).await?
    {
        return Ok(seen);
    }
    let state = admin.room_state(&listing.room_id, None).await?;
    let mut facts = RoomFacts {
        membership: membership(&state, identity.bot.as_str()),
        has_local_members: has_local_members(&state, identity),
        ..base(listing, &state, identity, around)
    };
    if stays && matches!(facts.power, Power::Known(_)) {
        facts.replaces = replaces(admin, listing, &state).await?;
        facts.in_excluded_space = in_excluded_space(&facts, around);
        facts.direct = direct_chat(admin, &state, &facts.replaces, identity).await?;
        facts.is_inactive = facts.membership != Membership::Joined
            && is_inactive(admin, &listing.room_id, selection, around.now_ms).await?;
        look_at_claims(admin, &mut facts, &state, around).await?;
        facts.is_unclear |= may_turn_out(&facts, &state, selection, around);
    } else if stays && facts.power == Power::NotShown && around.new_for.is_none() {
        look_back(admin, &mut facts, identity, around).await?;
    }
    let marks = Marks::of(&state, identity, around.recalled.as_deref());
    Ok(Seen { facts, marks, state, is_whole: true })
}

/// The facts of a large room that the bot is in, if it is as it should be.
async fn glance(
    admin: &dyn Admin,
    listing: &RoomListing,
    selection: &RoomSelection,
    identity: &Identity,
    around: &Surroundings,
) -> Result<Option<Seen>> {
    let mut state = admin.room_state(&listing.room_id, Some("m.room.power_levels")).await?;
    let power = read_power(&state, identity, &around.unhelpful);
    if !matches!(&power, Power::Known(known) if known.bot >= FULL_POWER) {
        return Ok(None);
    }
    if selection.names_rooms() {
        state.extend(admin.room_state(&listing.room_id, Some("m.room.create")).await?);
    }
    let mut facts = RoomFacts {
        power,
        membership: Membership::Joined,
        has_local_members: listing.joined_local_members > 1,
        replaces: replaces(admin, listing, &state).await?,
        ..base(listing, &state, identity, around)
    };
    facts.in_excluded_space = in_excluded_space(&facts, around);
    let marks = Marks::of(&state, identity, around.recalled.as_deref());
    let stays = !planner::leaves(&facts, selection, identity);
    Ok(stays.then_some(Seen { facts, marks, state, is_whole: false }))
}

async fn replaces(admin: &dyn Admin, listing: &RoomListing, state: &[StateEvent]) -> Result<Vec<RoomId>> {
    past::replaced_by(admin, &listing.room_id, content(state, "m.room.create", "")).await
}

/// Whether the room, or one that it replaces, is known to be an excluded space or below one.
fn in_excluded_space(facts: &RoomFacts, around: &Surroundings) -> bool {
    std::iter::once(&facts.room_id).chain(&facts.replaces).any(|room| around.excluded.contains(room))
}

/// A room that is made in a space says so at once, and the space a moment later: what is known of excluded spaces is older.
async fn look_at_claims(
    admin: &dyn Admin,
    facts: &mut RoomFacts,
    state: &[StateEvent],
    around: &Surroundings,
) -> Result<()> {
    let parents = state.iter().filter(|event| event.event_type == "m.space.parent");
    let claimed = parents.filter_map(|event| RoomId::parse(event.state_key.as_str()).ok());
    for space in claimed.filter(|space| around.excluded.contains(space)).take(MOST_CLAIMS) {
        facts.in_excluded_space |= spaces::children(admin, &space).await?.contains(&facts.room_id);
        facts.is_unclear |= around.new_for.is_some() && !facts.in_excluded_space;
    }
    Ok(())
}

/// Whether the next moments may show that a new room is one of those that are left out. A client that makes a direct chat
/// invites within the request that makes it, and an upgrade makes the new room before it says so in the old one; the homeserver
/// carries both out last.
fn may_turn_out(
    facts: &RoomFacts,
    state: &[StateEvent],
    selection: &RoomSelection,
    around: &Surroundings,
) -> bool {
    let Some(looks) = around.new_for else { return false };
    let is_alone = state.iter().filter(|event| event.event_type == "m.room.member").count() == 1;
    let may_become_chat = looks < LOOKS_FOR_INVITATIONS && is_alone && facts.direct.is_none();
    let claims = content(state, "m.room.create", "").and_then(past::predecessor).is_some();
    let may_replace = claims && facts.replaces.is_empty();
    let leaves_out_chats = selection.leaves_out_chats();
    (leaves_out_chats && may_become_chat) || ((leaves_out_chats || selection.names_rooms()) && may_replace)
}

/// Who is in a room that everybody here has left, and whether it can be joined, as far as its newest events tell.
async fn look_back(
    admin: &dyn Admin,
    facts: &mut RoomFacts,
    identity: &Identity,
    around: &Surroundings,
) -> Result<()> {
    let types = ["m.room.create", "m.room.join_rules", "m.room.member"];
    let last = past::last_state(admin, &facts.room_id, &types).await?;
    let rule = content(&last, "m.room.join_rules", "").and_then(|rules| rules.get("join_rule")?.as_str());
    facts.is_public = rule == Some("public");
    facts.via = other_servers(&last, identity);
    if let Some(create) = last.iter().find(|event| event.event_type == "m.room.create") {
        facts.creator = Some(create.sender.clone());
        facts.replaces = past::replaced_by(admin, &facts.room_id, Some(&create.content)).await?;
        facts.in_excluded_space = in_excluded_space(facts, around);
    }
    Ok(())
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

/// What can be told of every room; the bot is taken for outside.
fn base(
    listing: &RoomListing,
    state: &[StateEvent],
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
        replaces: Vec::new(),
        creator: create.map(|create| create.sender.clone()).or_else(|| listing.creator.clone()),
        is_public: rule == Some("public"),
        has_local_members: false,
        via: Vec::new(),
        membership: Membership::Outside,
        power: read_power(state, identity, &around.unhelpful),
        direct: None,
        in_excluded_space: around.excluded.contains(&listing.room_id),
        is_unclear: false,
        is_inactive: false,
        was_functional_member: false,
        recalled: around
            .recalled
            .as_ref()
            .map(|user| Recalled { user: user.clone(), membership: membership(state, user) }),
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
