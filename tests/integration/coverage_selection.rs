//! Which rooms coverage takes and what it leaves in them: the selection, direct chats, the notice.

use std::time::Duration;

use ems_bots::{
    coverage::{
        Control, Hint,
        planner::{FUNCTIONAL_MEMBERS, Identity, Invitation, StepKind},
        preview::{Removal, of_removal},
    },
    domain::{
        RoomId, ServerName, UserId,
        selection::{Leave, RoomSelection},
    },
    homeserver::{
        Account, Connect as _, HomeserverError,
        mock::{MockHomeserver, RoomKind},
    },
};
use serde_json::json;

use crate::coverage_stage::{Bot, direct_chat, localpart, server, start, user};

#[tokio::test(start_paused = true)]
async fn both_bots_say_in_a_direct_chat_that_they_are_services() {
    let homeserver = server();
    homeserver.set_latency(Duration::from_millis(10));
    let (alice, bob) = (user(&homeserver, "alice"), user(&homeserver, "bob"));
    let direct = direct_chat(&homeserver, &alice, &bob);
    let small = homeserver.create_room(&alice, "11", RoomKind::Private);
    homeserver.force_membership(&small, &bob, "join");
    let mut audit = start(&homeserver, "auditbot", Control::default());
    let mut admin = start(&homeserver, "adminbot", Control::default());
    audit.covered(2, 10).await;
    admin.covered(2, 10).await;
    // The other bot's write can overwrite one's own; the next look mends that.
    tokio::time::sleep(Duration::from_secs(20)).await;
    let content = homeserver.state(&direct, FUNCTIONAL_MEMBERS, "").expect("written");
    let mut members: Vec<&str> =
        content["service_members"].as_array().unwrap().iter().map(|m| m.as_str().unwrap()).collect();
    members.sort_unstable();
    assert_eq!(members, [admin.user.as_str(), audit.user.as_str()]);
    assert_eq!(homeserver.state(&small, FUNCTIONAL_MEMBERS, ""), None, "a small room is not a direct chat");
    audit.stop().await;
    admin.stop().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_done_before_it_is_known_which_rooms_a_new_selection_leaves_out() {
    let homeserver = server();
    let alice = user(&homeserver, "alice");
    let space = homeserver.create_room(&alice, "11", RoomKind::Space);
    let below = homeserver.create_room(&alice, "11", RoomKind::Private);
    homeserver.force_state(&space, &alice, "m.space.child", below.as_str(), json!({ "via": ["here.org"] }));
    let selection = RoomSelection { deny: vec![space.clone(), below.clone()], ..RoomSelection::default() };
    let mut bot = start(&homeserver, "auditbot", Control { selection, paused: false });
    bot.until("judged", 5, |state| state.totals.excluded.get("denied") == Some(&2)).await;
    homeserver.delay_answers("rooms", Duration::from_secs(3));
    bot.control.send_modify(|control| {
        control.selection = RoomSelection { exclude_spaces: vec![space.clone()], ..RoomSelection::default() };
    });
    bot.until("left out", 20, |state| state.totals.excluded.get("excluded_space") == Some(&2)).await;
    assert_eq!(bot.log.kinds(), []);
    bot.stop().await;
}

#[tokio::test(start_paused = true)]
async fn after_a_pause_nothing_is_done_before_it_is_known_what_was_put_into_an_excluded_space() {
    let homeserver = server();
    let alice = user(&homeserver, "alice");
    let space = homeserver.create_room(&alice, "11", RoomKind::Space);
    let selection = RoomSelection { exclude_spaces: vec![space.clone()], ..RoomSelection::default() };
    let mut bot = start(&homeserver, "auditbot", Control { selection, paused: false });
    bot.until("judged", 5, |state| state.totals.excluded.get("excluded_space") == Some(&1)).await;
    bot.control.send_modify(|control| control.paused = true);
    let room = homeserver.create_room(&alice, "11", RoomKind::Private);
    bot.until("found", 5, |state| state.totals.pending == 1).await;
    homeserver.force_state(&space, &alice, "m.space.child", room.as_str(), json!({ "via": ["here.org"] }));
    homeserver.delay_answers("rooms", Duration::from_secs(3));
    bot.control.send_modify(|control| control.paused = false);
    bot.until("left out", 20, |state| state.totals.excluded.get("excluded_space") == Some(&2)).await;
    assert_eq!(bot.log.kinds(), []);
    bot.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_selection_is_obeyed_and_its_changes_take_effect() {
    let homeserver = server();
    let (alice, bob) = (user(&homeserver, "alice"), user(&homeserver, "bob"));
    let space = homeserver.create_room(&alice, "11", RoomKind::Space);
    let below = homeserver.create_room(&alice, "11", RoomKind::Private);
    homeserver.force_state(&space, &alice, "m.space.child", below.as_str(), json!({ "via": ["here.org"] }));
    let claims = homeserver.create_room(&alice, "11", RoomKind::Private);
    homeserver.force_state(&claims, &alice, "m.space.parent", space.as_str(), json!({ "via": ["here.org"] }));
    let direct = direct_chat(&homeserver, &alice, &bob);
    let denied = homeserver.create_room(&alice, "11", RoomKind::Public);
    let selection = RoomSelection {
        direct_messages: false,
        deny: vec![denied.clone()],
        exclude_spaces: vec![space.clone()],
        ..RoomSelection::default()
    };
    let mut bot = start(&homeserver, "auditbot", Control { selection, paused: false });
    bot.covered(1, 5).await;
    assert_eq!(homeserver.membership(&claims, &bot.user), "join", "a claim to be in a space does not count");
    for room in [&space, &below, &direct, &denied] {
        assert_eq!(homeserver.membership(room, &bot.user), "none");
    }
    let excluded = bot.state.borrow().totals.excluded.clone();
    assert_eq!(excluded["excluded_space"], 2);
    assert_eq!(excluded["direct_message"], 1);
    assert_eq!(excluded["denied"], 1);

    // An invitation does not change that.
    homeserver.force_membership(&denied, &bot.user, "invite");
    bot.hints.send(Hint::Invited(denied.clone(), Invitation::default())).unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(homeserver.membership(&denied, &bot.user), "leave");

    bot.control.send_modify(|control| {
        control.selection = RoomSelection { deny: vec![claims.clone()], ..RoomSelection::default() };
    });
    bot.covered(4, 10).await;
    assert_eq!(
        homeserver.membership(&claims, &bot.user),
        "join",
        "what is denied later is not left by itself"
    );
    let ignored = bot.state.borrow().ignored.clone();
    assert_eq!(ignored.iter().collect::<Vec<_>>(), [&claims], "and nothing of it is recorded");
    bot.control.send_modify(|control| control.selection.leave = Leave::Excluded);
    bot.until("left", 10, |state| state.ignored.is_empty()).await;
    assert_eq!(homeserver.membership(&claims, &bot.user), "leave", "unless it is told to");
    bot.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_notice_is_posted_once_in_each_room_that_the_bot_joins() {
    let homeserver = server();
    let alice = user(&homeserver, "alice");
    let room = homeserver.create_room(&alice, "11", RoomKind::Private);
    let selection = RoomSelection { notice: Some("recorded".to_owned()), ..RoomSelection::default() };
    let mut bot = start(&homeserver, "auditbot", Control { selection, paused: false });
    bot.covered(1, 5).await;
    bot.hints.send(Hint::Room(room.clone())).unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let messages = homeserver.world().rooms[&room].messages.clone();
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].3, json!({ "msgtype": "m.notice", "body": "recorded" }));
    let kinds = bot.log.kinds();
    assert_eq!(kinds, [StepKind::MakeAdmin, StepKind::Join, StepKind::PostNotice]);
    bot.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_bot_that_is_removed_hands_over_leaves_and_stays_away() {
    for version in ["10", "11", "12"] {
        let homeserver = server();
        let (alice, bob) = (user(&homeserver, "alice"), user(&homeserver, "bob"));
        let lonely = homeserver.create_room(&alice, version, RoomKind::Private);
        homeserver.force_membership(&lonely, &bob, "join");
        let kept = homeserver.create_room(&alice, version, RoomKind::Encrypted);
        let mut bot = start(&homeserver, "auditbot", Control::default());
        bot.covered(2, 10).await;
        homeserver.force_membership(&lonely, &alice, "leave");
        let before = bot.log.kinds().len();
        bot.control.send_modify(|control| control.selection.leave = Leave::Everything { patient: false });
        bot.until("left", 30, |state| state.totals.excluded.get("farewell") == Some(&2)).await;
        for room in [&lonely, &kept] {
            assert_eq!(homeserver.membership(room, &bot.user), "leave", "version {version}");
        }
        assert_eq!(homeserver.power(&lonely, &bob), 100, "version {version}");
        assert_eq!(homeserver.power(&kept, &bob), 0, "version {version}");
        let mut kinds = bot.log.kinds().split_off(before);
        kinds.sort_unstable();
        assert_eq!(kinds, [StepKind::HandOver, StepKind::Leave, StepKind::Leave], "version {version}");
        // New rooms are no longer entered, and no invitation is taken.
        let new = homeserver.create_room(&alice, version, RoomKind::Private);
        homeserver.force_membership(&new, &bot.user, "invite");
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(homeserver.membership(&new, &bot.user), "leave", "version {version}");
        bot.stop().await;
    }
}

/// A room that only the bot and these people are in, of whom none is an admin.
async fn without_admin(homeserver: &MockHomeserver, bot: &mut Bot, people: &[UserId]) -> RoomId {
    let founder = user(homeserver, "founder");
    let room = homeserver.create_room(&founder, "11", RoomKind::Private);
    for person in people {
        homeserver.force_membership(&room, person, "join");
    }
    bot.covered(1, 10).await;
    homeserver.force_membership(&room, &founder, "leave");
    room
}

/// What the removal would do, which changes nothing.
async fn previewed(homeserver: &MockHomeserver, bot: &Bot) -> Vec<Removal> {
    let admin = homeserver.admin(homeserver.add_user(&localpart("asking-admin"), true));
    let identity = Identity { bot: bot.user.clone(), server: ServerName::parse("here.org").unwrap() };
    let (mut found, acts) = (Vec::new(), bot.log.entries().len());
    for room in admin.rooms().await.unwrap().rooms {
        found.push(of_removal(&*admin, &room, &identity).await.unwrap());
    }
    assert_eq!(bot.log.entries().len(), acts);
    found
}

#[tokio::test(start_paused = true)]
async fn who_inherits_can_use_their_account() {
    let homeserver = server();
    let people = ["a-deactivated", "b-locked", "c-bot", "d-bridged", "e-suspended", "f-person"];
    let people = people.map(|name| user(&homeserver, name));
    {
        let mut world = homeserver.world();
        let mut change = |number: usize, change: fn(&mut Account)| {
            change(&mut world.users.get_mut(people[number].as_str()).unwrap().account);
        };
        change(0, |account| account.deactivated = true);
        change(1, |account| account.locked = true);
        change(2, |account| account.user_type = Some("bot".to_owned()));
        change(3, |account| account.appservice = Some("irc".to_owned()));
        change(4, |account| account.restriction = Some("suspended"));
    }
    let mut bot = start(&homeserver, "auditbot", Control::default());
    let room = without_admin(&homeserver, &mut bot, &people).await;
    assert_eq!(previewed(&homeserver, &bot).await, [Removal::HandsOver(people[5].to_string())]);
    bot.control.send_modify(|control| control.selection.leave = Leave::Everything { patient: true });
    bot.until("left", 30, |state| state.totals.excluded.get("farewell") == Some(&1)).await;
    let powers: Vec<i64> = people.iter().map(|person| homeserver.power(&room, person)).collect();
    assert_eq!(powers, [0, 0, 0, 0, 0, 100]);
    assert_eq!(homeserver.membership(&room, &bot.user), "leave");
    bot.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_preview_waits_when_it_is_asked_to_and_passes_over_what_is_gone() {
    let homeserver = server();
    let alice = user(&homeserver, "alice");
    let mut bot = start(&homeserver, "auditbot", Control::default());
    for _ in 0..2 {
        homeserver.create_room(&alice, "11", RoomKind::Private);
    }
    bot.covered(2, 10).await;
    let gone = || HomeserverError::NotFound { what: "room_state".to_owned() };
    let limited =
        || HomeserverError::RateLimited { what: "room_state", retry_after: Some(Duration::from_secs(3)) };
    homeserver.fail("room_state", 1, gone);
    homeserver.fail("room_state", 2, limited);
    let asked = tokio::time::Instant::now();
    assert_eq!(previewed(&homeserver, &bot).await, [Removal::Stays(None), Removal::Leaves]);
    assert_eq!(asked.elapsed().as_secs(), 3);
    bot.stop().await;
}

#[tokio::test(start_paused = true)]
async fn of_two_bots_that_are_removed_the_last_one_hands_over() {
    let homeserver = server();
    let person = user(&homeserver, "person");
    let mut bot = start(&homeserver, "auditbot", Control::default());
    let room = without_admin(&homeserver, &mut bot, std::slice::from_ref(&person)).await;
    let other = user(&homeserver, "adminbot");
    homeserver.world().users.get_mut(other.as_str()).unwrap().account.user_type = Some("bot".to_owned());
    homeserver.force_membership(&room, &other, "join");
    let powers = json!({"users": {bot.user.as_str(): 100, other.as_str(): 100}});
    homeserver.force_state(&room, &bot.user, "m.room.power_levels", "", powers);
    bot.control.send_modify(|control| control.selection.leave = Leave::Everything { patient: true });
    bot.until("looked", 30, |state| state.totals.excluded.get("farewell") == Some(&1)).await;
    assert_eq!(homeserver.membership(&room, &bot.user), "join", "the other one may be leaving, too");
    assert_eq!(previewed(&homeserver, &bot).await, [Removal::LeavesToBot]);
    assert_eq!(homeserver.power(&room, &person), 0);

    homeserver.force_membership(&room, &other, "leave");
    bot.control.send_modify(|control| control.selection.leave = Leave::Everything { patient: false });
    bot.until("left", 30, |state| state.ignored.is_empty()).await;
    assert_eq!(homeserver.membership(&room, &bot.user), "leave");
    assert_eq!(homeserver.power(&room, &person), 100);
    bot.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_hand_over_keeps_the_bot_in_no_room() {
    let homeserver = server();
    let person = user(&homeserver, "person");
    let mut bot = start(&homeserver, "auditbot", Control::default());
    let room = without_admin(&homeserver, &mut bot, std::slice::from_ref(&person)).await;
    homeserver.fail_always("put_state", || HomeserverError::Refused {
        what: "put_state",
        status: 403,
        errcode: "M_FORBIDDEN".to_owned(),
        message: "a module forbids it".to_owned(),
    });
    bot.control.send_modify(|control| {
        control.selection.deny = vec![room.clone()];
        control.selection.leave = Leave::Excluded;
    });
    bot.until("left", 30, |state| state.ignored.is_empty() && state.totals.excluded.len() == 1).await;
    assert_eq!(homeserver.membership(&room, &bot.user), "leave");
    assert_eq!(homeserver.power(&room, &person), 0);
    bot.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_room_that_the_bot_cannot_leave_is_not_recorded_either() {
    let homeserver = server();
    let alice = user(&homeserver, "alice");
    let mut bot = start(&homeserver, "auditbot", Control::default());
    let room = homeserver.create_room(&alice, "11", RoomKind::Private);
    bot.covered(1, 10).await;
    let denied = RoomSelection { deny: vec![room.clone()], ..RoomSelection::default() };
    bot.control.send_modify(|control| control.selection = denied);
    bot.until("ignored", 10, |state| state.ignored.contains(&room)).await;
    // Not before it may, nor while it is refused.
    bot.control.send_modify(|control| {
        control.paused = true;
        control.selection.leave = Leave::Excluded;
    });
    bot.until("to be left", 10, |state| state.totals.pending == 1).await;
    assert!(bot.state.borrow().ignored.contains(&room), "paused");
    let refused = || HomeserverError::Refused {
        what: "leave",
        status: 403,
        errcode: "M_FORBIDDEN".to_owned(),
        message: "a module forbids it".to_owned(),
    };
    homeserver.fail_always("leave", refused);
    bot.control.send_modify(|control| control.paused = false);
    bot.until("refused", 10, |state| state.totals.blocked.get("refused") == Some(&1)).await;
    assert!(bot.state.borrow().ignored.contains(&room), "refused");
    homeserver.heal();
    bot.hints.send(Hint::Room(room.clone())).unwrap();
    bot.until("left", 60, |state| state.ignored.is_empty()).await;
    assert_eq!(homeserver.membership(&room, &bot.user), "leave");
    bot.stop().await;
}
