//! Tables for every decision, and properties of every sequence of them.

use super::*;
use crate::homeserver::StateEvent;

const BOT: &str = "@auditbot:here.org";

fn identity() -> Identity {
    Identity { bot: UserId::parse(BOT).unwrap(), server: ServerName::parse("here.org").unwrap() }
}

fn power(bot: i64, grant: Grant) -> Power {
    with_helpers(bot, grant, Helpers::default())
}

fn with_helpers(bot: i64, grant: Grant, helpers: Helpers) -> Power {
    Power::Known(Box::new(PowerFacts { bot, default: 0, needed_for_functional_members: 50, grant, helpers }))
}

fn by(level: i64) -> Grant {
    Grant::By { user: "@alice:here.org".to_owned(), level }
}

fn private_room() -> RoomFacts {
    RoomFacts {
        room_id: RoomId::parse("!room:here.org").unwrap(),
        replaces: Vec::new(),
        creator: Some("@alice:here.org".to_owned()),
        is_public: false,
        has_local_members: true,
        via: Vec::new(),
        membership: Membership::Outside,
        power: power(0, by(100)),
        direct: None,
        in_excluded_space: false,
        is_unclear: false,
        is_inactive: false,
        was_functional_member: false,
        recalled: None,
        owes_notice: false,
        succession: Succession::Settled,
        repeated: None,
    }
}

fn planned(facts: &RoomFacts) -> Plan {
    plan(facts, &RoomSelection::default(), &identity())
}

fn make_admin() -> Plan {
    Plan::Step(Step::MakeAdmin { on_behalf_of: "@alice:here.org".to_owned() })
}

#[test]
fn every_membership_and_power_has_its_next_step() {
    use Membership::{Banned, Invited, Joined, Outside};
    use Obstacle::{NoLocalAdmin, NobodyLocal, NotEnoughPower};
    let join = Plan::Step(Step::Join { via: Vec::new() });
    let table = [
        // membership, public, local members, bot's power, grant, plan
        (Outside, false, true, 0, by(100), make_admin()),
        (Outside, false, true, 100, by(100), make_admin()),
        (Outside, true, true, 0, by(100), join.clone()),
        (Outside, true, true, 0, Grant::NoLocalAdmin, join.clone()),
        (Outside, true, false, 0, Grant::NoLocalAdmin, Plan::Blocked(NobodyLocal)),
        (Outside, false, false, 0, Grant::NoLocalAdmin, Plan::Blocked(NobodyLocal)),
        (Outside, false, true, 0, Grant::NoLocalAdmin, Plan::Blocked(NoLocalAdmin)),
        (Outside, false, true, 0, Grant::NotEnoughPower, Plan::Blocked(NotEnoughPower)),
        (Invited, false, true, 0, by(100), join.clone()),
        (Invited, false, true, 0, Grant::NoLocalAdmin, join),
        (Joined, false, true, 0, by(100), make_admin()),
        (Joined, false, true, 50, by(75), make_admin()),
        (Joined, false, true, 75, by(75), Plan::Limited(NotEnoughPower)),
        (Joined, false, true, 75, by(50), Plan::Limited(NotEnoughPower)),
        (Joined, false, true, 100, Grant::NoLocalAdmin, Plan::Covered),
        (Joined, false, false, 100, Grant::NoLocalAdmin, Plan::Covered),
        (Joined, false, true, 50, Grant::NoLocalAdmin, Plan::Limited(NoLocalAdmin)),
        (Joined, false, true, 0, Grant::NoLocalAdmin, Plan::Limited(NoLocalAdmin)),
        (Joined, false, true, 0, Grant::NotEnoughPower, Plan::Limited(NotEnoughPower)),
        (Banned, false, true, 0, by(100), Plan::Blocked(Obstacle::Banned)),
        (Banned, true, true, 100, by(100), Plan::Blocked(Obstacle::Banned)),
    ];
    for (membership, is_public, has_local_members, bot, grant, expected) in table {
        let facts = RoomFacts {
            membership,
            is_public,
            has_local_members,
            power: power(bot, grant.clone()),
            ..private_room()
        };
        assert_eq!(
            planned(&facts),
            expected,
            "{membership:?} public {is_public} local {has_local_members} power {bot} {grant:?}"
        );
    }
}

#[test]
fn a_room_without_power_levels_is_left_alone() {
    for membership in [Membership::Outside, Membership::Invited, Membership::Joined, Membership::Banned] {
        for is_public in [true, false] {
            let facts = RoomFacts { membership, is_public, power: Power::Missing, ..private_room() };
            assert_eq!(planned(&facts), Plan::Blocked(Obstacle::PowerLevelsMissing));
            let empty = RoomFacts { has_local_members: false, ..facts };
            let told = if membership == Membership::Joined {
                Obstacle::PowerLevelsMissing
            } else {
                Obstacle::NobodyLocal
            };
            assert_eq!(planned(&empty), Plan::Blocked(told));
        }
    }
}

fn direct(people: &[&str]) -> Option<DirectChat> {
    let people = people.iter().map(|person| (*person).to_owned()).collect();
    Some(DirectChat { people, ..DirectChat::default() })
}

#[test]
fn every_exclusion_has_its_reason() {
    let room = private_room().room_id;
    let other = RoomId::parse("!other:here.org").unwrap();
    let all = RoomSelection::default;
    let pattern = regex::Regex::new("^@bridge_.*").unwrap();
    let table: Vec<(RoomFacts, RoomSelection, Exclusion)> = vec![
        (private_room(), RoomSelection { deny: vec![room], ..all() }, Exclusion::Denied),
        (private_room(), RoomSelection { only: vec![other], ..all() }, Exclusion::NotSelected),
        (
            RoomFacts { creator: Some("@eve:there.org".to_owned()), ..private_room() },
            all(),
            Exclusion::RemoteRoom,
        ),
        (RoomFacts { creator: None, ..private_room() }, all(), Exclusion::RemoteRoom),
        (
            RoomFacts { direct: direct(&["@alice:here.org"]), ..private_room() },
            RoomSelection { direct_messages: false, ..all() },
            Exclusion::DirectMessage,
        ),
        (
            RoomFacts { direct: direct(&["@alice:here.org", "@ceo:here.org"]), ..private_room() },
            RoomSelection { exclude_users: vec![UserId::parse("@ceo:here.org").unwrap()], ..all() },
            Exclusion::ExcludedUser,
        ),
        (RoomFacts { in_excluded_space: true, ..private_room() }, all(), Exclusion::ExcludedSpace),
        (
            private_room(),
            RoomSelection { creator_pattern: Some(pattern), ..all() },
            Exclusion::CreatorPattern,
        ),
        (
            RoomFacts { is_inactive: true, ..private_room() },
            RoomSelection { minimum_last_active: Some(std::time::Duration::from_secs(1)), ..all() },
            Exclusion::Inactive,
        ),
    ];
    // One of them has two causes, and the farewell is none of the selection's.
    assert_eq!(table.len(), Exclusion::ALL.len());
    for (facts, selection, reason) in table {
        let with = |membership| plan(&RoomFacts { membership, ..facts.clone() }, &selection, &identity());
        assert_eq!(with(Membership::Outside), Plan::Excluded(reason));
        assert_eq!(with(Membership::Banned), Plan::Excluded(reason));
        assert_eq!(with(Membership::Invited), Plan::Step(Step::RefuseInvitation(reason)));
        assert_eq!(with(Membership::Joined), Plan::Excluded(reason));
        let leaving = RoomSelection { leave: Leave::Excluded, ..selection.clone() };
        let joined = RoomFacts { membership: Membership::Joined, ..facts.clone() };
        assert_eq!(plan(&joined, &leaving, &identity()), Plan::Step(Step::Leave(reason)), "{reason:?}");
    }
}

#[test]
fn what_is_wished_of_a_room_holds_for_the_one_that_replaces_it() {
    let older = RoomId::parse("!older:here.org").unwrap();
    let heir = RoomFacts { replaces: vec![older.clone()], ..private_room() };
    let denied = RoomSelection { deny: vec![older.clone()], ..RoomSelection::default() };
    assert_eq!(plan(&heir, &denied, &identity()), Plan::Excluded(Exclusion::Denied));
    let only = RoomSelection { only: vec![older], ..RoomSelection::default() };
    assert_eq!(plan(&heir, &only, &identity()), make_admin());
    assert_eq!(plan(&private_room(), &only, &identity()), Plan::Excluded(Exclusion::NotSelected));
}

#[test]
fn a_new_room_that_may_belong_to_an_excluded_space_waits() {
    for membership in [Membership::Outside, Membership::Invited, Membership::Banned] {
        let facts = RoomFacts { membership, is_unclear: true, ..private_room() };
        assert_eq!(planned(&facts), Plan::Wait, "{membership:?}");
    }
    // The bot is there already: what it owes it does.
    let facts = RoomFacts { membership: Membership::Joined, is_unclear: true, ..private_room() };
    assert_eq!(planned(&facts), make_admin());
}

#[test]
fn an_invitation_to_an_unlisted_room_is_judged_by_what_it_tells() {
    let room = RoomId::parse("!elsewhere:there.org").unwrap();
    let refused = |is_direct: bool, in_excluded_space: bool, selection: &RoomSelection| {
        let state = [
            json!({ "type": "m.room.create", "state_key": "", "sender": "@eve:there.org", "content": {} }),
            json!({ "type": "m.room.member", "state_key": BOT, "sender": "@eve:there.org",
                    "content": { "membership": "invite", "is_direct": is_direct } }),
        ];
        excluded_unlisted(&room, &Invitation::read(&state, BOT), in_excluded_space, selection)
    };
    assert_eq!(refused(false, false, &RoomSelection::default()), Some(Exclusion::RemoteRoom));
    let everywhere = RoomSelection { local_only: false, ..RoomSelection::default() };
    assert_eq!(refused(true, false, &everywhere), None);
    assert_eq!(refused(false, true, &everywhere), Some(Exclusion::ExcludedSpace));
    let denied = RoomSelection { deny: vec![room.clone()], ..everywhere.clone() };
    assert_eq!(refused(false, false, &denied), Some(Exclusion::Denied));
    let no_chats = RoomSelection { direct_messages: false, ..everywhere.clone() };
    assert_eq!(refused(true, false, &no_chats), Some(Exclusion::DirectMessage));
    assert_eq!(refused(false, false, &no_chats), None);
    let eve = vec![UserId::parse("@eve:there.org").unwrap()];
    let not_her = RoomSelection { exclude_users: eve, ..everywhere.clone() };
    assert_eq!(refused(true, false, &not_her), Some(Exclusion::ExcludedUser));
    assert_eq!(refused(false, false, &not_her), None);
    let ours = regex::Regex::new(":here[.]org$").unwrap();
    let ours = RoomSelection { creator_pattern: Some(ours), ..everywhere };
    assert_eq!(refused(false, false, &ours), Some(Exclusion::CreatorPattern));
    // Who says nothing is trusted with nothing.
    let silent = excluded_unlisted(&room, &Invitation::read(&[json!("?")], BOT), false, &ours);
    assert_eq!(silent, Some(Exclusion::CreatorPattern));
}

#[test]
fn the_third_member_of_a_direct_chat_says_that_it_is_a_service() {
    let mut facts = RoomFacts {
        membership: Membership::Joined,
        power: power(100, by(100)),
        direct: direct(&["@alice:here.org", "@bob:here.org"]),
        ..private_room()
    };
    let alone = json!({ "service_members": [BOT] });
    assert_eq!(planned(&facts), Plan::Step(Step::MarkFunctional(alone)));

    let other = json!({ "service_members": ["@adminbot:here.org", 7, null], "more": 1 });
    facts.direct.as_mut().unwrap().functional_members = Some(other);
    let merged = json!({ "service_members": ["@adminbot:here.org", BOT], "more": 1 });
    assert_eq!(planned(&facts), Plan::Step(Step::MarkFunctional(merged.clone())));

    facts.direct.as_mut().unwrap().functional_members = Some(merged);
    assert_eq!(planned(&facts), Plan::Covered);

    // Somebody took it out again: that is their decision.
    facts.direct.as_mut().unwrap().functional_members = Some(json!({ "service_members": [] }));
    facts.was_functional_member = true;
    assert_eq!(planned(&facts), Plan::Covered);
}

#[test]
fn a_bot_that_another_bot_has_written_over_enters_itself_again() {
    let other = "@adminbot:here.org";
    let mut facts = RoomFacts {
        membership: Membership::Joined,
        power: power(100, by(100)),
        direct: direct(&["@alice:here.org", "@bob:here.org"]),
        was_functional_member: true,
        ..private_room()
    };
    let chat = facts.direct.as_mut().unwrap();
    chat.functional_members = Some(json!({ "service_members": [other] }));
    chat.marked_by = Some("@alice:here.org".to_owned());
    assert_eq!(planned(&facts), Plan::Covered, "a person took it out");
    facts.direct.as_mut().unwrap().marked_by = Some(other.to_owned());
    let both = json!({ "service_members": [other, BOT] });
    assert_eq!(planned(&facts), Plan::Step(Step::MarkFunctional(both)));
}

#[test]
fn the_notice_is_posted_after_the_bot_has_its_power() {
    let selection = RoomSelection { notice: Some("recorded".to_owned()), ..RoomSelection::default() };
    let joined = RoomFacts { membership: Membership::Joined, owes_notice: true, ..private_room() };
    assert_eq!(plan(&joined, &selection, &identity()), make_admin());
    let admin = RoomFacts { power: power(100, by(100)), ..joined };
    let post = Plan::Step(Step::PostNotice("recorded".to_owned()));
    assert_eq!(plan(&admin, &selection, &identity()), post);
    let posted = RoomFacts { owes_notice: false, ..admin };
    assert_eq!(plan(&posted, &selection, &identity()), Plan::Covered);
}

#[test]
fn reason_codes_are_distinct() {
    let mut codes: Vec<&str> = Exclusion::ALL.iter().map(|reason| reason.as_str()).collect();
    codes.extend(Obstacle::ALL.iter().map(|reason| reason.as_str()));
    let all = codes.len();
    codes.sort_unstable();
    codes.dedup();
    assert_eq!(codes.len(), all);
}

fn event(event_type: &str, key: &str, sender: &str, content: Value) -> StateEvent {
    StateEvent {
        event_id: format!("${event_type}{key}"),
        replaces: None,
        event_type: event_type.to_owned(),
        state_key: key.to_owned(),
        sender: sender.to_owned(),
        content,
    }
}

fn state(version: &str, levels: Value, joined: &[&str]) -> Vec<StateEvent> {
    let create = json!({ "room_version": version, "additional_creators": ["@carol:here.org"] });
    let mut state = vec![
        event("m.room.create", "", "@alice:here.org", create),
        event("m.room.power_levels", "", "@alice:here.org", levels),
    ];
    let member = |user: &&str| event("m.room.member", user, user, json!({ "membership": "join" }));
    state.extend(joined.iter().map(member));
    state
}

#[test]
fn power_is_read_as_the_homeserver_reads_it() {
    let alice = "@alice:here.org";
    let remote = "@eve:there.org";
    let named = |user: &str, level: i64| Grant::By { user: user.to_owned(), level };
    let table = [
        ("11", json!({ "users": { alice: 100 } }), vec![alice], named(alice, 100)),
        ("11", json!({ "users": { alice: "100" } }), vec![alice], named(alice, 100)),
        ("11", json!({ "users": { alice: 100, remote: 200 } }), vec![alice, remote], named(alice, 100)),
        // Gone, or never named.
        ("11", json!({ "users": { alice: 100 } }), vec![remote], Grant::NoLocalAdmin),
        ("11", json!({ "users_default": 100 }), vec![alice], Grant::NoLocalAdmin),
        ("11", json!({ "users": { alice: 49 } }), vec![alice], Grant::NotEnoughPower),
        (
            "11",
            json!({ "users": { alice: 50 }, "events": { "m.room.power_levels": 100 } }),
            vec![alice],
            Grant::NotEnoughPower,
        ),
        // The bot does not give itself anything.
        ("11", json!({ "users": { BOT: 100 } }), vec![BOT], Grant::NoLocalAdmin),
        // From version 12 on the creators, present ones, come first.
        ("12", json!({ "users": {} }), vec![alice], named(alice, 100)),
        ("12", json!({ "users": {} }), vec!["@carol:here.org"], named("@carol:here.org", 100)),
        ("11", json!({ "users": {} }), vec![alice], Grant::NoLocalAdmin),
        (
            "12",
            json!({ "users": { "@bob:here.org": 60 } }),
            vec!["@bob:here.org"],
            named("@bob:here.org", 60),
        ),
    ];
    for (version, levels, joined, grant) in table {
        let read = read_power(&state(version, levels.clone(), &joined), &identity(), &[]);
        let Power::Known(power) = read else { panic!("{levels}: no power levels") };
        assert_eq!(power.grant, grant, "version {version} {levels} {joined:?}");
    }
    let nothing = vec![event("m.room.create", "", alice, json!({}))];
    assert_eq!(read_power(&nothing, &identity(), &[]), Power::Missing);
}

mod properties;
mod recovery;
