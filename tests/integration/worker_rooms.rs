//! What a run of the worker leaves to the next one about its rooms, with the database of the trail in between.

use ems_bots::{
    domain::{Localpart, ServerName, UserId},
    homeserver::{
        HomeserverError,
        mock::{MockHomeserver, RoomKind},
    },
    worker::cover::Farewells,
};

use crate::worker_stage::{Running, Stage, until};

const ROOMS: usize = 3;

async fn until_covered(running: &Running) {
    until("covered", || {
        let report = running.board.get();
        let is_covered = report.rooms_covered.reason == "Covered" && report.rooms.covered == 3;
        is_covered.then_some(()).ok_or(report.rooms_covered)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_ends_in_order_is_believed_and_one_that_is_killed_or_suspended_is_not() {
    let homeserver = MockHomeserver::new(ServerName::parse("example.org").unwrap());
    let user =
        |name: &str| -> UserId { homeserver.add_user(&Localpart::parse(name).unwrap(), false).user_id };
    let (_bot, alice) = (user("auditbot"), user("alice"));
    for _ in 0..ROOMS {
        homeserver.create_room(&alice, "11", RoomKind::Private);
    }
    let mut stage = Stage::set().await;
    stage.leaves = Some((homeserver.clone(), Farewells::default()));
    let looks = || homeserver.count("room_state");

    let running = stage.start(None);
    until_covered(&running).await;
    // Before it gives power, after that, and once more when it has settled.
    until("settled", || (looks() >= 3 * ROOMS).then_some(()).ok_or(looks())).await;
    // What it did has changed what is listed.
    let lists = homeserver.count("rooms");
    until("listed", || (homeserver.count("rooms") > lists + 1).then_some(()).ok_or(lists)).await;
    running.stop().await.unwrap();

    let known = looks();
    let running = stage.start(None);
    until_covered(&running).await;
    assert_eq!(looks(), known, "believed");
    running.kill().await;

    let running = stage.start(None);
    until_covered(&running).await;
    assert_eq!(looks(), known + ROOMS, "killed");

    // A write of its status changes the custom resource, and nothing for its rooms.
    let lists = homeserver.count("rooms");
    stage.instructions.send_modify(|_| {});
    until("listed", || (homeserver.count("rooms") > lists + 1).then_some(()).ok_or(lists)).await;
    assert_eq!(looks(), known + ROOMS, "changed");

    stage.instructions.send_modify(|told| told.suspend = true);
    until("suspended", || running.board.get().suspended.then_some(()).ok_or(())).await;
    stage.instructions.send_modify(|told| told.suspend = false);
    until_covered(&running).await;
    assert_eq!(looks(), known + 2 * ROOMS, "suspended");
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn how_far_it_is_is_told_while_not_every_room_has_been_looked_at() {
    let homeserver = MockHomeserver::new(ServerName::parse("example.org").unwrap());
    let user =
        |name: &str| -> UserId { homeserver.add_user(&Localpart::parse(name).unwrap(), false).user_id };
    for creator in [user("auditbot"), user("alice"), user("bob")] {
        homeserver.create_room(&creator, "11", RoomKind::Private);
    }
    let down = || HomeserverError::Server { status: 502, what: "power in a room" };
    homeserver.fail_always("make_room_admin", down);
    let mut stage = Stage::set().await;
    stage.leaves = Some((homeserver.clone(), Farewells::default()));
    let running = stage.start(None);
    until("one of three", || {
        let report = running.board.get();
        let told = (report.rooms.covered, report.rooms.pending, report.rooms_covered.reason);
        if told == (1, 2, "Looking") { Ok(()) } else { Err(told) }
    })
    .await;
    homeserver.heal();
    until_covered(&running).await;
    running.stop().await.unwrap();
}
