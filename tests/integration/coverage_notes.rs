//! What coverage notes of rooms, and what the next process makes of it.

use std::{collections::BTreeMap, time::Duration};

use ems_bots::{
    coverage::{
        Control,
        planner::{FUNCTIONAL_MEMBERS, StepKind},
    },
    domain::{
        RoomId,
        room::{RoomNote, RoomState},
        selection::RoomSelection,
    },
    homeserver::mock::{MockHomeserver, RoomKind},
};
use serde_json::json;

use crate::coverage_stage::{Bot, continue_as, direct_chat, localpart, server, start, user};

fn noted(bot: &Bot) -> BTreeMap<RoomId, RoomNote> {
    bot.log.rooms().into_iter().map(|note| (note.room_id.clone(), note)).collect()
}

/// The next process, after this one was killed.
pub(crate) fn after_a_kill(homeserver: &MockHomeserver, bot: &Bot, control: Control) -> Bot {
    bot.task.abort();
    let admin = homeserver.add_user(&localpart("second-admin"), true);
    continue_as(homeserver, bot, admin, control)
}

#[tokio::test(start_paused = true)]
async fn every_room_is_noted_with_its_state_and_only_when_that_changes() {
    let homeserver = server();
    let alice = user(&homeserver, "alice");
    let covered = homeserver.create_room(&alice, "11", RoomKind::Private);
    homeserver.force_state(&covered, &alice, "m.room.name", "", json!({ "name": "Plans" }));
    let banned = homeserver.create_room(&alice, "11", RoomKind::Private);
    homeserver.force_membership(&banned, &alice, "leave");
    let denied = homeserver.create_room(&alice, "11", RoomKind::Private);
    homeserver.force_state(&denied, &alice, "m.room.name", "", json!({ "name": "Works council" }));
    let selection = RoomSelection { deny: [denied.clone()].into(), ..RoomSelection::default() };
    let control = Control { selection, paused: false };
    let mut bot = start(&homeserver, "auditbot", control.clone());
    bot.covered(1, 10).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let notes = noted(&bot);
    let told = |room: &RoomId| {
        let note = &notes[room];
        (note.state, note.reason.as_deref(), note.name.as_deref())
    };
    assert_eq!(told(&covered), (RoomState::Covered, None, Some("Plans")));
    assert_eq!(told(&banned), (RoomState::Blocked, Some("nobody_local"), None));
    assert_eq!(told(&denied), (RoomState::Excluded, Some("denied"), None), "nothing of it is kept");

    let written = bot.log.notes();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(bot.log.notes(), written, "an hour in which nothing happened");

    // The next process has nothing to write.
    let mut next = after_a_kill(&homeserver, &bot, control);
    next.covered(1, 10).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!((next.log.notes(), noted(&next)), (written, notes.clone()));

    // A room that is gone is forgotten.
    homeserver.world().rooms.remove(&covered);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(
        noted(&next).keys().collect::<Vec<_>>(),
        notes.keys().filter(|room| **room != covered).collect::<Vec<_>>()
    );
    next.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_seen_at_the_end_is_noted_too() {
    let homeserver = server();
    let alice = user(&homeserver, "alice");
    homeserver.create_room(&alice, "11", RoomKind::Private);
    let mut bot = start(&homeserver, "auditbot", Control::default());
    bot.covered(1, 10).await;
    let log = bot.log.clone();
    bot.stop().await;
    assert_eq!(log.rooms().iter().map(|note| note.state).collect::<Vec<_>>(), [RoomState::Covered]);
}

#[tokio::test(start_paused = true)]
async fn a_notice_that_is_owed_survives_the_process_and_is_posted_once() {
    let homeserver = server();
    let alice = user(&homeserver, "alice");
    let room = homeserver.create_room(&alice, "11", RoomKind::Private);
    let selection = RoomSelection { notice: Some("recorded".to_owned()), ..RoomSelection::default() };
    let control = Control { selection, paused: false };
    let posted = || homeserver.world().rooms[&room].messages.len();
    // Killed when it has joined.
    homeserver.set_latency(Duration::from_millis(20));
    let bot = start(&homeserver, "auditbot", control.clone());
    while homeserver.membership(&room, &bot.user) != "join" {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(posted(), 0);
    let mut next = after_a_kill(&homeserver, &bot, control.clone());
    next.covered(1, 10).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(posted(), 1);
    let mut third = after_a_kill(&homeserver, &next, control);
    third.covered(1, 10).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(posted(), 1);
    third.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_notice_that_is_wished_for_later_is_not_posted_where_the_bot_has_long_been() {
    let homeserver = server();
    let alice = user(&homeserver, "alice");
    let room = homeserver.create_room(&alice, "11", RoomKind::Private);
    let mut bot = start(&homeserver, "auditbot", Control::default());
    bot.covered(1, 10).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let selection = RoomSelection { notice: Some("recorded".to_owned()), ..RoomSelection::default() };
    let mut next = after_a_kill(&homeserver, &bot, Control { selection, paused: false });
    next.covered(1, 10).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(homeserver.world().rooms[&room].messages.len(), 0);
    next.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_person_who_takes_the_bot_out_of_the_functional_members_has_their_way_after_a_restart_too() {
    let homeserver = server();
    let (alice, bob) = (user(&homeserver, "alice"), user(&homeserver, "bob"));
    let room = direct_chat(&homeserver, &alice, &bob);
    let mut bot = start(&homeserver, "auditbot", Control::default());
    bot.covered(1, 10).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(noted(&bot)[&room].was_functional_member);
    homeserver.force_state(&room, &alice, FUNCTIONAL_MEMBERS, "", json!({ "service_members": [] }));
    let mut next = after_a_kill(&homeserver, &bot, Control::default());
    next.covered(1, 10).await;
    tokio::time::sleep(Duration::from_secs(1200)).await;
    let marks = next.log.kinds().into_iter().filter(|kind| *kind == StepKind::MarkFunctional).count();
    assert_eq!(marks, 1, "by the first process");
    next.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_noted_now_is_noted_later() {
    let homeserver = server();
    let alice = user(&homeserver, "alice");
    let room = homeserver.create_room(&alice, "11", RoomKind::Private);
    homeserver.force_membership(&room, &alice, "leave");
    let bot = start(&homeserver, "auditbot", Control::default());
    *bot.log.refuses.lock().unwrap() = true;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(bot.log.rooms(), []);
    *bot.log.refuses.lock().unwrap() = false;
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(noted(&bot)[&room].state, RoomState::Blocked);
    bot.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_visit_that_ends_with_the_process_is_noted() {
    let homeserver = server();
    let alice = user(&homeserver, "alice");
    let room = homeserver.create_room(&alice, "11", RoomKind::Private);
    let selection = RoomSelection { notice: Some("recorded".to_owned()), ..RoomSelection::default() };
    let control = Control { selection, paused: false };
    let posted = || homeserver.world().rooms[&room].messages.len();
    homeserver.set_latency(Duration::from_millis(50));
    let bot = start(&homeserver, "auditbot", control.clone());
    while posted() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // It still looks at what came of it.
    let (user, log) = (bot.user.clone(), bot.log.clone());
    bot.stop().await;
    let greeted = log.rooms().iter().map(|note| note.is_greeted).collect::<Vec<_>>();
    assert_eq!(greeted, [true], "of {user}");
}

#[tokio::test(start_paused = true)]
async fn a_gap_in_a_listing_makes_no_room_new() {
    let homeserver = server();
    let alice = user(&homeserver, "alice");
    let room = homeserver.create_room(&alice, "11", RoomKind::Private);
    let selection = RoomSelection { notice: Some("recorded".to_owned()), ..RoomSelection::default() };
    let mut bot = start(&homeserver, "auditbot", Control { selection, paused: false });
    bot.covered(1, 10).await;
    let posted = || homeserver.world().rooms[&room].messages.len();
    for _ in 0..2 {
        homeserver.world().unlisted.insert(room.clone());
        tokio::time::sleep(Duration::from_secs(20)).await;
        homeserver.world().unlisted.clear();
        tokio::time::sleep(Duration::from_secs(20)).await;
    }
    assert_eq!((posted(), noted(&bot).len()), (1, 1));
    bot.stop().await;
}
