//! Rooms in which nobody has power, or that the bot was thrown out of, on a homeserver in memory.

use std::time::Duration;

use ems_bots::{
    coverage::{Control, Hint, planner::StepKind},
    domain::{RoomId, UserId},
    homeserver::{
        HomeserverError,
        mock::{MockHomeserver, RoomKind},
    },
};

use crate::coverage_stage::{continue_with, localpart, server, start, user};

struct Left {
    homeserver: MockHomeserver,
    alice: UserId,
    bob: UserId,
    room: RoomId,
}

/// Alice made the room and left; Bob is still in it.
fn left(version: &str) -> Left {
    let homeserver = server();
    let (alice, bob) = (user(&homeserver, "alice"), user(&homeserver, "bob"));
    let room = homeserver.create_room(&alice, version, RoomKind::Encrypted);
    homeserver.force_membership(&room, &bob, "join");
    homeserver.force_membership(&room, &alice, "leave");
    Left { homeserver, alice, bob, room }
}

#[tokio::test(start_paused = true)]
async fn an_admin_who_left_gives_the_power_and_leaves_again() {
    for version in ["10", "11", "12"] {
        let Left { homeserver, alice, bob, room } = left(version);
        homeserver.world().rate_limits = true;
        let mut bot = start(&homeserver, "auditbot", Control::default());
        bot.covered(1, 10).await;
        assert_eq!(homeserver.power(&room, &bot.user), 100, "version {version}");
        assert_eq!(homeserver.membership(&room, &alice), "leave", "version {version}");
        let expected = [
            (StepKind::Recall, Some(&bob)),
            (StepKind::Return, Some(&alice)),
            (StepKind::MakeAdmin, Some(&alice)),
            (StepKind::Release, Some(&alice)),
            (StepKind::Join, None),
        ];
        let seen = bot.log.intents();
        let names: Vec<_> = seen.iter().map(|act| (act.kind, act.on_behalf_of.as_deref())).collect();
        assert_eq!(names, expected.map(|(kind, user)| (kind, user.map(UserId::as_str))), "{version}");
        assert!(
            seen.iter()
                .filter(|act| act.on_behalf_of.is_some())
                .all(|act| { act.kind == StepKind::MakeAdmin || act.reason == "no_local_admin" })
        );
        // Every token to act as somebody was ended: what is left are their own sessions.
        assert_eq!(homeserver.world().sessions_of(&alice), 1);
        assert_eq!(homeserver.world().sessions_of(&bob), 1);
        bot.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_any_point_leaves_nobody_behind() {
    for call in ["puppet", "invite", "join", "make_room_admin", "leave", "room_state"] {
        for nth in 1..=6 {
            let Left { homeserver, alice, room, .. } = left("11");
            homeserver.set_latency(Duration::from_millis(1));
            homeserver.lose_answer(call, nth);
            let bot = start(&homeserver, "auditbot", Control::default());
            // Virtual time: the call with the lost answer has been made, and nothing after its delay.
            let made = || homeserver.count(call) >= usize::try_from(nth).unwrap();
            let deadline = tokio::time::Instant::now() + Duration::from_secs(2);
            while !made() && tokio::time::Instant::now() < deadline {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            bot.task.abort();
            let admin = homeserver.add_user(&localpart("second-admin"), true);
            let mut second = continue_with(&homeserver, &bot, admin);
            second.covered(1, 60).await;
            assert_eq!(homeserver.power(&room, &second.user), 100, "{call} {nth}");
            assert_eq!(homeserver.membership(&room, &alice), "leave", "{call} {nth}");
            second.stop().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_comes_back_by_themselves_later_stays() {
    let Left { homeserver, alice, room, .. } = left("11");
    let mut bot = start(&homeserver, "auditbot", Control::default());
    bot.covered(1, 10).await;
    homeserver.force_membership(&room, &alice, "join");
    bot.hints.send(Hint::Room(room.clone())).unwrap();
    tokio::time::sleep(Duration::from_secs(1200)).await;
    assert_eq!(homeserver.membership(&room, &alice), "join");
    bot.stop().await;
}

#[tokio::test(start_paused = true)]
async fn somebody_in_whose_name_nothing_works_is_not_tried_again_and_again() {
    let Left { homeserver, alice, room, .. } = left("11");
    homeserver.fail_always("make_room_admin", || HomeserverError::Refused {
        what: "power in a room",
        status: 403,
        errcode: "M_FORBIDDEN".to_owned(),
        message: "a module says no".to_owned(),
    });
    let mut bot = start(&homeserver, "auditbot", Control::default());
    // Bob invites the bot: it reads, without power.
    bot.until("limited", 20, |state| state.totals.limited.values().sum::<u64>() == 1).await;
    assert_eq!(homeserver.membership(&room, &bot.user), "join");
    assert_eq!(homeserver.membership(&room, &alice), "leave");
    let recalled = || bot.log.kinds().iter().filter(|kind| **kind == StepKind::Recall).count();
    assert_eq!(recalled(), 1);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(recalled(), 1, "an hour later");
    bot.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_banned_bot_is_let_in_again() {
    for version in ["11", "12"] {
        let homeserver = server();
        let alice = user(&homeserver, "alice");
        let room = homeserver.create_room(&alice, version, RoomKind::Private);
        let bot = user(&homeserver, "auditbot");
        homeserver.force_membership(&room, &bot, "ban");
        let mut bot = start(&homeserver, "auditbot", Control::default());
        bot.covered(1, 10).await;
        let kinds = [StepKind::Unban, StepKind::MakeAdmin, StepKind::Join];
        assert_eq!(bot.log.kinds(), kinds, "version {version}");
        assert_eq!(bot.log.intents()[0].reason, "banned");
        bot.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_creator_who_bans_again_and_again_is_not_answered_in_a_hot_loop() {
    let homeserver = server();
    let alice = user(&homeserver, "alice");
    let room = homeserver.create_room(&alice, "12", RoomKind::Private);
    let mut bot = start(&homeserver, "auditbot", Control::default());
    bot.covered(1, 5).await;
    for _ in 0..600 {
        homeserver.force_membership(&room, &bot.user, "ban");
        bot.hints.send(Hint::Room(room.clone())).unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let lifted = homeserver.count("unban");
    assert!((5..30).contains(&lifted), "{lifted} bans lifted in ten minutes");
    bot.stop().await;
}

#[tokio::test(start_paused = true)]
async fn who_was_brought_back_does_not_wait_for_a_join_that_is_refused() {
    let Left { homeserver, alice, room, .. } = left("11");
    // The first join is Alice's, all others are the bot's.
    for nth in 2..200 {
        homeserver.fail("join", nth, || HomeserverError::Refused {
            what: "join",
            status: 403,
            errcode: "M_FORBIDDEN".to_owned(),
            message: "a module says no".to_owned(),
        });
    }
    let bot = start(&homeserver, "auditbot", Control::default());
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(homeserver.count("join") > 1, "the bot tries");
    assert_eq!(homeserver.membership(&room, &bot.user), "invite");
    assert_eq!(homeserver.membership(&room, &alice), "leave");
    homeserver.heal();
    let mut bot = bot;
    bot.covered(1, 3600).await;
    assert_eq!(homeserver.power(&room, &bot.user), 100);
    bot.stop().await;
}
