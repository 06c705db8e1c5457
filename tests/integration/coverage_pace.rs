//! How fast rooms are covered, how that is told, and what slows it down.

use std::time::Duration;

use ems_bots::{
    coverage::Control,
    homeserver::{HomeserverError, mock::RoomKind},
};

use crate::coverage_stage::{server, start, user};

#[tokio::test(start_paused = true)]
async fn while_rooms_are_pending_pace_and_the_time_that_is_left_are_told() {
    const ROOMS: u64 = 400;
    let homeserver = server();
    homeserver.set_latency(Duration::from_millis(100));
    let alice = user(&homeserver, "alice");
    for _ in 0..ROOMS {
        homeserver.create_room(&alice, "11", RoomKind::Private);
    }
    let mut bot = start(&homeserver, "auditbot", Control::default());
    bot.until("half of them", 600, |state| state.totals.covered >= ROOMS / 2).await;
    let totals = bot.state.borrow().totals.clone();
    let pace = totals.pace.expect("there is a pace");
    let foretold = Duration::from_secs(pace.remaining_seconds);
    let took = bot.covered(ROOMS, 600).await;
    let share = foretold.as_secs_f64() / took.as_secs_f64();
    assert!((0.5..2.0).contains(&share), "foretold {foretold:?}, took {took:?}");
    let a_minute = totals.pending * 60_000 / u64::try_from(took.as_millis()).unwrap();
    assert!((a_minute / 2..a_minute * 2).contains(&pace.per_minute), "{pace:?}, {a_minute} a minute");
    assert_eq!(bot.state.borrow().totals.pace, None, "nothing is left");
    bot.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_quick_homeserver_is_not_looked_at_more_often_for_it() {
    let homeserver = server();
    let alice = user(&homeserver, "alice");
    for _ in 0..1000 {
        homeserver.create_room(&alice, "11", RoomKind::Private);
    }
    let mut bot = start(&homeserver, "auditbot", Control::default());
    let took = bot.covered(1000, 60).await;
    assert!((9..15).contains(&took.as_secs()), "took {took:?}");
    bot.stop().await;
}

#[tokio::test(start_paused = true)]
async fn backs_off_for_as_long_as_the_homeserver_says() {
    let homeserver = server();
    let alice = user(&homeserver, "alice");
    for _ in 0..8 {
        homeserver.create_room(&alice, "11", RoomKind::Private);
    }
    homeserver.fail("make_room_admin", 1, || HomeserverError::RateLimited {
        what: "power in a room",
        retry_after: Some(Duration::from_secs(30)),
    });
    let mut bot = start(&homeserver, "auditbot", Control::default());
    tokio::time::sleep(Duration::from_secs(2)).await;
    let asked = homeserver.count("make_room_admin");
    assert!(asked <= 4, "{asked} rooms were begun while the limit was hit");
    tokio::time::sleep(Duration::from_secs(25)).await;
    assert_eq!(homeserver.count("make_room_admin"), asked, "no further room until the time is over");
    bot.covered(8, 60).await;
    bot.stop().await;
}
