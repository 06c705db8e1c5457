//! The coverage loop against a homeserver in memory, in tokio's own time.

use std::time::Duration;

use ems_bots::{
    coverage::{
        ActOutcome, Control, Hint,
        planner::{FUNCTIONAL_MEMBERS, Invitation, StepKind},
    },
    domain::selection::RoomSelection,
    homeserver::{HomeserverError, mock::RoomKind},
};
use serde_json::json;

use crate::coverage_stage::{
    Entry, a_list, direct_chat, localpart, rooms_of_all_kinds, server, start, start_again, started, user,
};

#[tokio::test(start_paused = true)]
async fn covers_rooms_of_every_kind_and_version() {
    let homeserver = server();
    homeserver.world().rate_limits = true;
    let alice = user(&homeserver, "alice");
    let rooms = rooms_of_all_kinds(&homeserver, &alice);
    let mut bot = start(&homeserver, "auditbot", Control::default());
    bot.covered(rooms.len() as u64, 10).await;
    for room in &rooms {
        assert_eq!(homeserver.membership(room, &bot.user), "join");
        assert_eq!(homeserver.power(room, &bot.user), 100);
    }
    assert!(bot.state.borrow().is_complete);
    bot.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_settled_server_costs_few_requests() {
    let homeserver = server();
    let alice = user(&homeserver, "alice");
    let rooms = rooms_of_all_kinds(&homeserver, &alice);
    let mut bot = start(&homeserver, "auditbot", Control::default());
    bot.covered(rooms.len() as u64, 10).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let before = homeserver.calls().len();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let calls = homeserver.calls().split_off(before);
    let count = |name: &str| calls.iter().filter(|call| call.call == name).count();
    let (listings, probes) = (count("rooms"), count("inhabited_rooms"));
    assert!(listings <= 13 && count("joined_rooms") <= 13, "{listings} listings in a minute");
    assert!(probes <= 200, "{probes} looks at the number of rooms in a minute");
    assert_eq!(calls.len(), 2 * listings + probes, "{calls:?}");
    bot.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_room_under_creation_is_not_touched() {
    let homeserver = server();
    let alice = user(&homeserver, "alice");
    let room = homeserver.begin_room(&alice, "11", RoomKind::Encrypted);
    let mut bot = start(&homeserver, "auditbot", Control::default());
    bot.until("seen", 5, |state| state.totals.blocked.get("power_levels_missing") == Some(&1)).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(homeserver.count("make_room_admin"), 0);
    homeserver.finish_room(&room);
    bot.covered(1, 15).await;
    assert!(!homeserver.world().rooms[&room].destroyed);
    assert_eq!(homeserver.power(&room, &alice), 100);
    bot.stop().await;
}

#[tokio::test(start_paused = true)]
async fn two_bots_both_get_their_power() {
    let homeserver = server();
    let alice = user(&homeserver, "alice");
    homeserver.set_latency(Duration::from_millis(15));
    let rooms = rooms_of_all_kinds(&homeserver, &alice);
    let mut audit = start(&homeserver, "auditbot", Control::default());
    let mut admin = start(&homeserver, "adminbot", Control::default());
    audit.covered(rooms.len() as u64, 30).await;
    admin.covered(rooms.len() as u64, 30).await;
    for room in &rooms {
        for bot in [&audit.user, &admin.user] {
            assert_eq!(homeserver.power(room, bot), 100);
        }
    }
    audit.stop().await;
    admin.stop().await;
}

#[tokio::test(start_paused = true)]
async fn power_that_another_writer_overwrote_is_asked_for_again() {
    let homeserver = server();
    let alice = user(&homeserver, "alice");
    let room = homeserver.create_room(&alice, "11", RoomKind::Private);
    let mut bot = start(&homeserver, "auditbot", Control::default());
    bot.covered(1, 5).await;
    let levels = json!({ "users": { alice.as_str(): 100 } });
    homeserver.force_state(&room, &alice, "m.room.power_levels", "", levels);
    bot.hints.send(Hint::Room(room.clone())).unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(homeserver.power(&room, &bot.user), 100);
    bot.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_creator_who_takes_the_power_back_each_time_is_not_answered_in_a_hot_loop() {
    let homeserver = server();
    let alice = user(&homeserver, "alice");
    let room = homeserver.create_room(&alice, "12", RoomKind::Private);
    let mut bot = start(&homeserver, "auditbot", Control::default());
    bot.covered(1, 5).await;
    for _ in 0..600 {
        homeserver.force_state(&room, &alice, "m.room.power_levels", "", json!({ "users": {} }));
        bot.hints.send(Hint::Room(room.clone())).unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let repairs = homeserver.count("make_room_admin");
    assert!((5..30).contains(&repairs), "{repairs} repairs in ten minutes");
    bot.stop().await;
}

#[tokio::test(start_paused = true)]
async fn kicked_comes_back_and_banned_where_nobody_stands_above_does_not() {
    let homeserver = server();
    let alice = user(&homeserver, "alice");
    let kicked = homeserver.create_room(&alice, "12", RoomKind::Private);
    let banned = homeserver.create_room(&alice, "11", RoomKind::Private);
    let mut bot = start(&homeserver, "auditbot", Control::default());
    bot.covered(2, 5).await;
    let asked = homeserver.count("make_room_admin");
    homeserver.force_membership(&kicked, &bot.user, "leave");
    homeserver.force_membership(&banned, &bot.user, "ban");
    bot.until("settled", 10, |state| {
        state.totals.covered == 1 && state.totals.blocked.get("banned") == Some(&1)
    })
    .await;
    assert_eq!(homeserver.membership(&kicked, &bot.user), "join");
    assert_eq!(homeserver.count("make_room_admin"), asked + 1, "nothing is asked for a banned bot");
    bot.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_invitation_to_a_room_elsewhere_is_refused() {
    let homeserver = server();
    let alice = user(&homeserver, "alice");
    let bot = started(&homeserver, "auditbot", Control::default()).await;
    // Of a remote room the list says nothing as long as nobody local is in it.
    let remote = homeserver.create_room(&alice, "11", RoomKind::Private);
    homeserver.force_membership(&remote, &bot.user, "invite");
    let hidden = homeserver.world().rooms.remove(&remote).unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    bot.hints.send(Hint::Invited(remote.clone(), Invitation::default())).unwrap();
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert!(homeserver.calls().iter().any(|call| call.call == "leave" && call.subject == remote.as_str()));
    assert_eq!(homeserver.count("join"), 0);
    drop(hidden);
    bot.stop().await;
}

#[tokio::test(start_paused = true)]
async fn paused_looks_but_does_not_act() {
    let homeserver = server();
    let alice = user(&homeserver, "alice");
    homeserver.create_room(&alice, "11", RoomKind::Private);
    let mut bot =
        start(&homeserver, "auditbot", Control { selection: RoomSelection::default(), paused: true });
    bot.until("seen", 5, |state| state.totals.pending == 1).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(homeserver.count("make_room_admin") + homeserver.count("join"), 0);
    assert!(bot.log.entries().is_empty());
    bot.control.send_modify(|control| control.paused = false);
    bot.covered(1, 5).await;
    bot.stop().await;
}

#[tokio::test(start_paused = true)]
async fn acts_are_recorded_before_and_after_with_whose_name_was_used() {
    let homeserver = server();
    let alice = user(&homeserver, "alice");
    let room = homeserver.create_room(&alice, "12", RoomKind::Private);
    let mut bot = start(&homeserver, "auditbot", Control::default());
    bot.covered(1, 5).await;
    let entries = bot.log.entries();
    let [Entry::Intent(power), Entry::Outcome(of, ActOutcome::Done { sent }), Entry::Intent(join), _] =
        &entries[..]
    else {
        panic!("{entries:#?}")
    };
    assert_eq!((power.kind, join.kind), (StepKind::MakeAdmin, StepKind::Join));
    assert_eq!(power.on_behalf_of.as_deref(), Some(alice.as_str()));
    assert_eq!((&power.room_id, of), (&room, &power.id));
    assert_ne!(power.id, join.id);
    let types: Vec<&str> = sent.iter().map(|event| event.event_type.as_str()).collect();
    assert_eq!(types, ["m.room.power_levels", "m.room.member"]);
    assert!(sent.iter().all(|event| event.sender == alice.as_str()));
    bot.stop().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_done_that_cannot_be_recorded() {
    let homeserver = server();
    let alice = user(&homeserver, "alice");
    homeserver.create_room(&alice, "11", RoomKind::Private);
    let mut bot =
        start(&homeserver, "auditbot", Control { selection: RoomSelection::default(), paused: true });
    *bot.log.refuses.lock().unwrap() = true;
    bot.control.send_modify(|control| control.paused = false);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(homeserver.count("make_room_admin"), 0);
    *bot.log.refuses.lock().unwrap() = false;
    bot.covered(1, 120).await;
    bot.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_lost_after_the_effect_is_not_repeated() {
    let homeserver = server();
    let alice = user(&homeserver, "alice");
    homeserver.create_room(&alice, "11", RoomKind::Private);
    homeserver.lose_answer("make_room_admin", 1);
    homeserver.lose_answer("join", 1);
    let mut bot = start(&homeserver, "auditbot", Control::default());
    bot.covered(1, 30).await;
    assert_eq!(homeserver.count("make_room_admin"), 1);
    assert_eq!(homeserver.count("join"), 1);
    let failed = bot.log.entries().into_iter().find_map(|entry| match entry {
        Entry::Outcome(_, ActOutcome::Failed { category, sent }) => Some((category, sent.len())),
        _ => None,
    });
    assert_eq!(failed, Some(("unreachable", 2)), "what was sent all the same is recorded");
    bot.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_any_point_is_healed_by_the_next_process() {
    for call in ["make_room_admin", "join", "room_state", "puppet"] {
        for nth in 1..=3 {
            let homeserver = server();
            let (alice, bob) = (user(&homeserver, "alice"), user(&homeserver, "bob"));
            let direct = direct_chat(&homeserver, &alice, &bob);
            homeserver.lose_answer(call, nth);
            let bot = start(&homeserver, "auditbot", Control::default());
            tokio::time::sleep(Duration::from_millis(1)).await;
            bot.task.abort();
            let admin = homeserver.add_user(&localpart("second-admin"), true);
            let mut second = start_again(&homeserver, &bot.user, admin, Control::default());
            second.covered(1, 30).await;
            assert_eq!(homeserver.power(&direct, &bot.user), 100, "{call} {nth}");
            assert!(homeserver.state(&direct, FUNCTIONAL_MEMBERS, "").is_some(), "{call} {nth}");
            second.stop().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_homeserver_is_a_problem_that_passes() {
    let homeserver = server();
    let alice = user(&homeserver, "alice");
    homeserver.create_room(&alice, "11", RoomKind::Private);
    homeserver.fail_always("rooms", || HomeserverError::Server { status: 502, what: "the list of rooms" });
    let mut bot = start(&homeserver, "auditbot", Control::default());
    bot.until("told", 5, |state| state.problem.as_ref().is_some_and(|p| p.category == "server_error")).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    let asked = homeserver.count("rooms");
    assert!(asked < 25, "asked {asked} times in ten minutes");
    homeserver.heal();
    bot.covered(1, 70).await;
    assert_eq!(bot.state.borrow().problem, None);
    bot.stop().await;
}

#[tokio::test(start_paused = true)]
async fn one_room_that_is_refused_does_not_hold_up_the_others() {
    let homeserver = server();
    let alice = user(&homeserver, "alice");
    let empty = homeserver.create_room(&alice, "11", RoomKind::Private);
    homeserver.force_membership(&empty, &alice, "leave");
    homeserver.create_room(&alice, "11", RoomKind::Private);
    homeserver.fail("join", 1, || HomeserverError::Refused {
        what: "joining a room",
        status: 403,
        errcode: "M_FORBIDDEN".to_owned(),
        message: "no".to_owned(),
    });
    let mut bot = start(&homeserver, "auditbot", Control::default());
    bot.until("honest", 10, |state| {
        state.totals.covered == 1 && state.totals.blocked.get("nobody_local") == Some(&1)
    })
    .await;
    bot.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_revoked_puppet_token_is_renewed_and_the_last_one_is_ended() {
    let homeserver = server();
    let alice = user(&homeserver, "alice");
    homeserver.create_room(&alice, "11", RoomKind::Private);
    let mut bot = start(&homeserver, "auditbot", Control::default());
    bot.covered(1, 5).await;
    let user = bot.user.clone();
    homeserver.world().revoke_puppets(&user);
    homeserver.create_room(&alice, "11", RoomKind::Private);
    bot.covered(2, 5).await;
    assert_eq!(homeserver.count("puppet"), 2);
    let sessions = homeserver.world().sessions_of(&user);
    bot.stop().await;
    assert_eq!(homeserver.world().sessions_of(&user), sessions - 1);
}

#[tokio::test(start_paused = true)]
async fn rooms_are_visited_while_the_list_is_on_its_way_which_is_older_than_what_is_seen_there() {
    let homeserver = server();
    let alice = user(&homeserver, "alice");
    let room = homeserver.create_room(&alice, "11", RoomKind::Private);
    let mut bot = started(&homeserver, "auditbot", Control::default()).await;
    bot.covered(1, 5).await;
    // Past the look that follows what was done.
    tokio::time::sleep(Duration::from_secs(20)).await;
    homeserver.delay_answers("rooms", Duration::from_secs(4));
    // Of two lists the second one says that the bot is not there.
    a_list(&homeserver).await;
    homeserver.force_membership(&room, &bot.user, "leave");
    let before = a_list(&homeserver).await;
    let looks = homeserver.count("room_state");
    bot.hints.send(Hint::Room(room.clone())).unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(homeserver.membership(&room, &bot.user), "join");
    assert_eq!(homeserver.count("rooms"), before, "the list is still on its way");
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(
        homeserver.count("room_state") - looks,
        3,
        "before and after the bot came back, and once more later"
    );
    bot.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_invitation_is_not_judged_by_a_list_that_is_older_than_it() {
    let homeserver = server();
    let alice = user(&homeserver, "alice");
    let mut bot = started(&homeserver, "auditbot", Control::default()).await;
    homeserver.delay_answers("rooms", Duration::from_secs(8));
    a_list(&homeserver).await;
    // This list cannot know the room: it is on its way.
    let room = homeserver.create_room(&alice, "11", RoomKind::Private);
    homeserver.force_membership(&room, &bot.user, "invite");
    bot.hints.send(Hint::Invited(room.clone(), Invitation::default())).unwrap();
    bot.covered(1, 60).await;
    assert!(!bot.log.kinds().contains(&StepKind::RefuseInvitation), "{:?}", bot.log.kinds());
    bot.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_large_room_is_looked_at_where_something_happened_in_it() {
    let homeserver = server();
    let alice = user(&homeserver, "alice");
    let room = homeserver.create_room(&alice, "11", RoomKind::Private);
    for number in 0..20 {
        let member = user(&homeserver, &format!("member{number}"));
        homeserver.force_membership(&room, &member, "join");
    }
    let mut bot = started(&homeserver, "auditbot", Control::default()).await;
    bot.covered(1, 5).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let lists = a_list(&homeserver).await;
    // Its power levels do not show that.
    homeserver.force_membership(&room, &bot.user, "leave");
    bot.hints.send(Hint::Room(room.clone())).unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(homeserver.membership(&room, &bot.user), "join");
    assert_eq!(homeserver.count("rooms"), lists, "no list told it");
    bot.stop().await;
}
