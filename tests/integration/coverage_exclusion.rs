//! What the selection leaves out stays left out, whatever becomes of the room; and what is not done is not told as done.

use std::time::Duration;

use ems_bots::{
    coverage::{Control, Hint, planner::StepKind},
    domain::{RoomId, UserId, room::RoomState, selection::RoomSelection},
    homeserver::{
        HomeserverError,
        mock::{MockHomeserver, RoomKind},
    },
};
use serde_json::json;

use crate::coverage_stage::{direct_chat, server, start, started, user};

fn wished(selection: RoomSelection) -> Control {
    Control { selection, paused: false }
}

fn without_chats_of(person: &UserId) -> Control {
    wished(RoomSelection { exclude_users: vec![person.clone()], ..RoomSelection::default() })
}

fn without_space(space: &RoomId) -> Control {
    wished(RoomSelection { exclude_spaces: vec![space.clone()], ..RoomSelection::default() })
}

fn put_into(homeserver: &MockHomeserver, space: &RoomId, room: &RoomId, by: &UserId) {
    homeserver.force_state(space, by, "m.space.child", room.as_str(), json!({ "via": ["here.org"] }));
}

fn claim(homeserver: &MockHomeserver, room: &RoomId, space: &RoomId, by: &UserId) {
    homeserver.force_state(room, by, "m.space.parent", space.as_str(), json!({ "via": ["here.org"] }));
}

/// Everybody of the server leaves: it shows nothing of the room any more.
fn desert(homeserver: &MockHomeserver, room: &RoomId, people: &[&UserId]) {
    for person in people {
        homeserver.force_membership(room, person, "leave");
    }
    homeserver.world().rooms.get_mut(room).unwrap().is_left = true;
}

/// As an upgrade does it.
fn replace(homeserver: &MockHomeserver, older: &RoomId, newer: &RoomId, by: &UserId) {
    let tombstone = json!({ "replacement_room": newer.as_str() });
    homeserver.force_state(older, by, "m.room.tombstone", "", tombstone);
    say_that_it_replaces(homeserver, newer, older, by);
}

fn say_that_it_replaces(homeserver: &MockHomeserver, newer: &RoomId, older: &RoomId, by: &UserId) {
    let create = json!({ "room_version": "11", "predecessor": { "room_id": older.as_str() } });
    homeserver.force_state(newer, by, "m.room.create", "", create);
}

#[tokio::test(start_paused = true)]
async fn a_chat_stays_one_with_who_declined_or_left() {
    let homeserver = server();
    let (patient, doctor) = (user(&homeserver, "patient"), user(&homeserver, "doctor"));
    let declined = homeserver.create_room(&patient, "11", RoomKind::Encrypted);
    let invite = json!({ "membership": "invite", "is_direct": true });
    homeserver.force_state(&declined, &patient, "m.room.member", doctor.as_str(), invite);
    homeserver.force_membership(&declined, &doctor, "leave");
    let left = direct_chat(&homeserver, &patient, &doctor);
    homeserver.force_membership(&left, &doctor, "leave");
    let left_by_its_maker = direct_chat(&homeserver, &doctor, &patient);
    homeserver.force_membership(&left_by_its_maker, &doctor, "leave");
    let banned = direct_chat(&homeserver, &patient, &doctor);
    homeserver.force_membership(&banned, &doctor, "ban");
    let still = direct_chat(&homeserver, &patient, &doctor);
    let mut bot = start(&homeserver, "auditbot", without_chats_of(&doctor));
    bot.until("left out", 5, |state| state.totals.excluded.get("excluded_user") == Some(&5)).await;
    homeserver.force_membership(&still, &doctor, "leave");
    bot.hints.send(Hint::Changed(still)).unwrap();
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(bot.state.borrow().totals.excluded.get("excluded_user"), Some(&5));
    assert_eq!(bot.log.kinds(), []);
    bot.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_new_room_waits_for_the_invitation_that_makes_it_a_chat() {
    let homeserver = server();
    let (patient, doctor) = (user(&homeserver, "patient"), user(&homeserver, "doctor"));
    let mut bot = started(&homeserver, "auditbot", without_chats_of(&doctor)).await;
    let chat = homeserver.create_room(&patient, "11", RoomKind::Encrypted);
    bot.until("found", 2, |state| state.totals.pending == 1).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let invite = json!({ "membership": "invite", "is_direct": true });
    homeserver.force_state(&chat, &patient, "m.room.member", doctor.as_str(), invite);
    bot.until("left out", 5, |state| state.totals.excluded.get("excluded_user") == Some(&1)).await;
    assert_eq!(bot.log.kinds(), []);
    // Alone in a room is no chat.
    homeserver.create_room(&patient, "11", RoomKind::Encrypted);
    bot.covered(1, 3).await;
    bot.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_replaces_a_room_that_is_left_out_is_left_out_too() {
    for is_deserted in [false, true] {
        let homeserver = server();
        let (patient, doctor) = (user(&homeserver, "patient"), user(&homeserver, "doctor"));
        let denied = homeserver.create_room(&patient, "11", RoomKind::Private);
        let chat = direct_chat(&homeserver, &patient, &doctor);
        for older in [&denied, &chat] {
            let newer = homeserver.create_room(&patient, "11", RoomKind::Private);
            homeserver.force_membership(&newer, &doctor, "join");
            replace(&homeserver, older, &newer, &patient);
            if is_deserted {
                desert(&homeserver, older, &[&patient, &doctor]);
            }
        }
        // That anybody can say of their room.
        let claims = homeserver.create_room(&patient, "11", RoomKind::Private);
        say_that_it_replaces(&homeserver, &claims, &denied, &patient);
        let mut control = without_chats_of(&doctor);
        control.selection.deny = vec![denied];
        let mut bot = start(&homeserver, "auditbot", control);
        bot.covered(1, 10).await;
        let excluded = bot.state.borrow().totals.excluded.clone();
        assert_eq!(excluded.get("denied"), Some(&2), "deserted: {is_deserted}");
        // Nothing is known of the members of a room that everybody has left, but that it can be entered no more.
        assert_eq!(excluded.get("excluded_user"), Some(&if is_deserted { 1 } else { 2 }));
        assert_eq!(homeserver.membership(&claims, &bot.user), "join");
        assert_eq!(bot.log.kinds(), [StepKind::MakeAdmin, StepKind::Join]);
        bot.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_room_waits_for_the_tombstone_of_the_one_that_it_replaces() {
    let homeserver = server();
    let alice = user(&homeserver, "alice");
    let denied = homeserver.create_room(&alice, "11", RoomKind::Private);
    let wishes = RoomSelection { deny: vec![denied.clone()], ..RoomSelection::default() };
    let mut bot = started(&homeserver, "auditbot", wished(wishes)).await;
    let newer = homeserver.create_room(&alice, "11", RoomKind::Private);
    say_that_it_replaces(&homeserver, &newer, &denied, &alice);
    bot.until("found", 2, |state| state.totals.pending == 1).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    replace(&homeserver, &denied, &newer, &alice);
    bot.until("left out", 5, |state| state.totals.excluded.get("denied") == Some(&2)).await;
    assert_eq!(bot.log.kinds(), []);
    bot.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_room_that_is_made_in_an_excluded_space_is_never_entered() {
    let homeserver = server();
    let alice = user(&homeserver, "alice");
    let space = homeserver.create_room(&alice, "11", RoomKind::Space);
    let mut bot = started(&homeserver, "auditbot", without_space(&space)).await;
    let room = homeserver.create_room(&alice, "11", RoomKind::Private);
    claim(&homeserver, &room, &space, &alice);
    bot.until("found", 2, |state| state.totals.pending == 1).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    put_into(&homeserver, &space, &room, &alice);
    bot.until("left out", 5, |state| state.totals.excluded.get("excluded_space") == Some(&2)).await;
    assert_eq!(bot.log.kinds(), []);
    // What a room says of itself keeps the bot out for a moment only.
    let claims = homeserver.create_room(&alice, "11", RoomKind::Private);
    claim(&homeserver, &claims, &space, &alice);
    bot.covered(1, 10).await;
    bot.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_put_into_an_excluded_space_later_is_known_soon_and_looked_at_alone() {
    let homeserver = server();
    let alice = user(&homeserver, "alice");
    let space = homeserver.create_room(&alice, "11", RoomKind::Space);
    let nested = homeserver.create_room(&alice, "11", RoomKind::Space);
    put_into(&homeserver, &space, &nested, &alice);
    let rooms: Vec<_> = (0..20).map(|_| homeserver.create_room(&alice, "11", RoomKind::Private)).collect();
    let mut bot = start(&homeserver, "auditbot", without_space(&space));
    bot.covered(20, 10).await;
    tokio::time::sleep(Duration::from_secs(25)).await;
    let looks = homeserver.count("room_state");
    put_into(&homeserver, &nested, &rooms[7], &alice);
    let took = bot.until("ignored", 30, |state| state.ignored.contains(&rooms[7])).await;
    assert!(took <= Duration::from_secs(16), "{took:?}");
    // The two spaces are asked every ten seconds, and the one room.
    assert!(homeserver.count("room_state") - looks <= 8, "{}", homeserver.count("room_state") - looks);
    bot.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_space_that_everybody_has_left_keeps_its_rooms_out() {
    let homeserver = server();
    let alice = user(&homeserver, "alice");
    let space = homeserver.create_room(&alice, "11", RoomKind::Space);
    let nested = homeserver.create_room(&alice, "11", RoomKind::Space);
    let room = homeserver.create_room(&alice, "11", RoomKind::Private);
    put_into(&homeserver, &space, &nested, &alice);
    put_into(&homeserver, &nested, &room, &alice);
    desert(&homeserver, &space, &[&alice]);
    desert(&homeserver, &nested, &[&alice]);
    let mut bot = start(&homeserver, "auditbot", without_space(&space));
    bot.until("left out", 5, |state| state.totals.excluded.get("excluded_space") == Some(&3)).await;
    tokio::time::sleep(Duration::from_mins(2)).await;
    assert_eq!(bot.state.borrow().totals.excluded.get("excluded_space"), Some(&3));
    assert_eq!(bot.log.kinds(), []);
    bot.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_public_room_of_ours_that_only_others_are_left_in_is_joined_by_their_server() {
    let homeserver = server();
    let alice = user(&homeserver, "alice");
    let eve = UserId::parse("@eve:there.org").unwrap();
    let open = homeserver.create_room(&alice, "11", RoomKind::Public);
    let closed = homeserver.create_room(&alice, "11", RoomKind::Private);
    for room in [&open, &closed] {
        homeserver.force_membership(room, &eve, "join");
        desert(&homeserver, room, &[&alice]);
    }
    let mut bot = start(&homeserver, "auditbot", Control::default());
    bot.until("joined", 10, |state| state.totals.limited.get("no_local_admin") == Some(&1)).await;
    assert_eq!(homeserver.membership(&open, &bot.user), "join");
    assert_eq!(bot.state.borrow().totals.blocked.get("nobody_local"), Some(&1));
    assert_eq!(bot.log.kinds(), [StepKind::Join]);
    bot.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_room_that_the_bot_does_not_get_back_into_is_not_covered() {
    let homeserver = server();
    let alice = user(&homeserver, "alice");
    let room = homeserver.create_room(&alice, "11", RoomKind::Private);
    let mut bot = start(&homeserver, "auditbot", Control::default());
    bot.covered(1, 10).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    homeserver.fail_always("make_room_admin", || HomeserverError::Server { status: 502, what: "power" });
    homeserver.force_membership(&room, &bot.user, "leave");
    bot.hints.send(Hint::Room(room.clone())).unwrap();
    bot.until("missed", 5, |state| state.totals.pending == 1 && state.totals.covered == 0).await;
    assert!(bot.state.borrow().oldest_pending.is_some());
    tokio::time::sleep(Duration::from_secs(30)).await;
    let noted: Vec<_> = bot.log.rooms().iter().map(|note| note.state).collect();
    assert_eq!(noted, [RoomState::Pending], "whoever reads the book knows it, too");
    homeserver.heal();
    bot.covered(1, 60).await;
    // It is so, too, while nothing can be looked at.
    homeserver.fail_always("room_state", || HomeserverError::Server { status: 502, what: "state" });
    homeserver.force_membership(&room, &bot.user, "leave");
    bot.until("missed", 20, |state| state.totals.pending == 1).await;
    bot.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_notice_whose_answer_is_lost_is_posted_once_and_again_after_coming_back() {
    let homeserver = server();
    let alice = user(&homeserver, "alice");
    let room = homeserver.create_room(&alice, "11", RoomKind::Private);
    let selection = RoomSelection { notice: Some("recorded".to_owned()), ..RoomSelection::default() };
    homeserver.lose_answer("send", 1);
    let mut bot = start(&homeserver, "auditbot", wished(selection));
    bot.covered(1, 30).await;
    let posted = || homeserver.world().rooms[&room].messages.len();
    assert_eq!(posted(), 1);
    homeserver.force_membership(&room, &bot.user, "leave");
    bot.hints.send(Hint::Room(room.clone())).unwrap();
    while posted() == 1 {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(posted(), 2);
    bot.stop().await;
}
