//! Rooms that are made while the loop runs.

use std::time::Duration;

use ems_bots::{
    coverage::{
        Control,
        planner::{FUNCTIONAL_MEMBERS, StepKind},
    },
    homeserver::mock::{MemberCounts, RoomKind},
};
use serde_json::json;

use crate::coverage_stage::{a_list, direct_chat, server, start, started, user};

#[tokio::test(start_paused = true)]
async fn a_new_room_is_covered_within_a_second() {
    let homeserver = server();
    let alice = user(&homeserver, "alice");
    homeserver.set_latency(Duration::from_millis(20));
    let mut bot = started(&homeserver, "auditbot", Control::default()).await;
    let room = homeserver.create_room(&alice, "12", RoomKind::Encrypted);
    let took = bot.covered(1, 5).await;
    assert!(took < Duration::from_millis(700), "took {took:?}");
    assert_eq!(homeserver.power(&room, &bot.user), 100);
    bot.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_room_is_looked_at_before_and_after_power_is_given_and_once_more_later() {
    let homeserver = server();
    let alice = user(&homeserver, "alice");
    homeserver.create_room(&alice, "11", RoomKind::Private);
    let mut bot = start(&homeserver, "auditbot", Control::default());
    let mut known = 0;
    for rooms in 1..=2 {
        bot.covered(rooms, 5).await;
        assert_eq!(homeserver.count("room_state") - known, 2, "before it gives power and after that");
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!(homeserver.count("room_state") - known, 3, "and whether it stays so");
        known = homeserver.count("room_state");
        // One that was there, and a new one.
        homeserver.create_room(&alice, "11", RoomKind::Private);
    }
    bot.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_new_room_is_found_in_a_short_list_or_else_in_the_long_one() {
    let homeserver = server();
    let alice = user(&homeserver, "alice");
    let mut bot = started(&homeserver, "auditbot", Control::default()).await;
    let lists = || homeserver.count("rooms");
    let before = a_list(&homeserver).await;
    homeserver.create_room(&alice, "11", RoomKind::Private);
    bot.covered(1, 2).await;
    assert_eq!(lists(), before);
    // Those in which only the bot is left come first in a list of the smallest.
    let rooms: Vec<_> = (0..320).map(|_| homeserver.create_room(&alice, "11", RoomKind::Private)).collect();
    bot.covered(321, 60).await;
    for room in &rooms {
        homeserver.force_membership(room, &alice, "leave");
    }
    tokio::time::sleep(Duration::from_mins(1)).await;
    let (before, short) = (a_list(&homeserver).await, homeserver.count("smallest_rooms"));
    for number in 1..=2 {
        homeserver.create_room(&alice, "11", RoomKind::Private);
        bot.covered(321 + number, 2).await;
        assert_eq!(lists(), before + usize::try_from(number).unwrap());
    }
    assert_eq!(
        homeserver.count("smallest_rooms"),
        short + 1,
        "what was of no use is not tried again at once"
    );
    bot.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_room_that_is_being_made_makes_no_long_list_and_is_covered_as_soon_as_somebody_is_in_it() {
    let homeserver = server();
    let alice = user(&homeserver, "alice");
    let mut bot = started(&homeserver, "auditbot", Control::default()).await;
    let before = a_list(&homeserver).await;
    homeserver.world().member_counts = MemberCounts::Late;
    let room = homeserver.begin_room(&alice, "11", RoomKind::Private);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(homeserver.count("rooms"), before, "nobody is in it");
    // Found by the next long list, it is looked at, and counts as found when somebody is in it.
    let before = a_list(&homeserver).await;
    bot.until("found", 1, |state| state.totals.pending == 1).await;
    homeserver.world().member_counts = MemberCounts::Known;
    homeserver.finish_room(&room);
    let took = bot.covered(1, 2).await;
    assert!(took < Duration::from_secs(1), "took {took:?}");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(homeserver.count("rooms"), before);
    bot.stop().await;
}

#[tokio::test(start_paused = true)]
async fn another_bots_mark_in_a_direct_chat_stays_also_if_it_comes_during_the_join() {
    let homeserver = server();
    let (alice, bob) = (user(&homeserver, "alice"), user(&homeserver, "bob"));
    let mut bot = started(&homeserver, "auditbot", Control::default()).await;
    let other = "@adminbot:here.org";
    let (world, sender, own) = (homeserver.clone(), alice.clone(), bot.user.clone());
    *bot.log.meanwhile.lock().unwrap() = Some(Box::new(move |room| {
        let has_come = world.membership(room, &own) == "join";
        if has_come && world.state(room, FUNCTIONAL_MEMBERS, "").is_none() {
            let content = json!({"service_members": [other]});
            world.force_state(room, &sender, FUNCTIONAL_MEMBERS, "", content);
        }
    }));
    let room = direct_chat(&homeserver, &alice, &bob);
    bot.covered(1, 5).await;
    assert!(bot.log.kinds().contains(&StepKind::MarkFunctional));
    let marked = homeserver.state(&room, FUNCTIONAL_MEMBERS, "").unwrap();
    assert_eq!(marked["service_members"], json!([other, bot.user.as_str()]));
    bot.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_room_that_is_denied_while_it_is_worked_on_is_not_joined() {
    let homeserver = server();
    let alice = user(&homeserver, "alice");
    let mut bot = started(&homeserver, "auditbot", Control::default()).await;
    let control = bot.control.clone();
    *bot.log.meanwhile.lock().unwrap() =
        Some(Box::new(move |room| control.send_modify(|wished| wished.selection.deny = vec![room.clone()])));
    let room = homeserver.create_room(&alice, "11", RoomKind::Private);
    bot.until("denied", 10, |state| state.totals.excluded.get("denied") == Some(&1)).await;
    assert_eq!(bot.log.kinds(), [StepKind::MakeAdmin, StepKind::RefuseInvitation]);
    assert_ne!(homeserver.membership(&room, &bot.user), "join");
    bot.stop().await;
}
