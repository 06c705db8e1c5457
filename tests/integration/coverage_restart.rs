//! A process that ends in order notes where it has nothing to do. The next one believes that, and finds out by itself
//! where it is no longer true.

use std::time::Duration;

use ems_bots::{
    coverage::{Control, Hint},
    domain::{RoomId, UserId, selection::RoomSelection},
    homeserver::{
        HomeserverError,
        mock::{MockHomeserver, RoomKind},
    },
};
use serde_json::json;

use crate::{
    coverage_notes::after_a_kill,
    coverage_stage::{Bot, continue_as, localpart, server, start, user},
};

const ROOMS: usize = 60;

/// A bot that is in many rooms and has ended; the room that something happens in.
struct Ended {
    homeserver: MockHomeserver,
    bot: Bot,
    alice: UserId,
    room: RoomId,
}

impl Ended {
    async fn after(control: Control) -> Self {
        let homeserver = server();
        let alice = user(&homeserver, "alice");
        let rooms: Vec<_> =
            (0..ROOMS).map(|_| homeserver.create_room(&alice, "11", RoomKind::Private)).collect();
        let mut bot = start(&homeserver, "auditbot", control);
        bot.covered(60, 60).await;
        tokio::time::sleep(Duration::from_secs(20)).await;
        bot.end().await;
        Self { homeserver, bot, alice, room: rooms[40].clone() }
    }

    fn next(&self, control: Control) -> Bot {
        let admin = self.homeserver.add_user(&localpart("second-admin"), true);
        continue_as(&self.homeserver, &self.bot, admin, control)
    }

    fn looks(&self) -> usize {
        self.homeserver.count("room_state")
    }

    fn demote(&self) {
        let levels = json!({"users": {self.alice.as_str(): 100}});
        self.homeserver.force_state(&self.room, &self.alice, "m.room.power_levels", "", levels);
    }

    fn power(&self) -> i64 {
        self.homeserver.power(&self.room, &self.bot.user)
    }
}

#[tokio::test(start_paused = true)]
async fn where_nothing_was_to_do_is_not_looked_at_at_once() {
    let ended = Ended::after(Control::default()).await;
    let (looks, acts, notes) = (ended.looks(), ended.bot.log.entries().len(), ended.bot.log.notes());
    let mut next = ended.next(Control::default());
    next.until("complete", 10, |state| state.is_complete).await;
    assert_eq!(next.state.borrow().totals.covered, 60);
    assert_eq!(ended.looks(), looks);
    // Little by little, and all of them in their time: this one was changed behind the bot's back.
    ended.demote();
    tokio::time::sleep(Duration::from_mins(5)).await;
    let half = ended.looks() - looks;
    assert!((20..50).contains(&half), "{half}");
    tokio::time::sleep(Duration::from_mins(5)).await;
    assert!(ended.looks() - looks >= ROOMS);
    assert_eq!(ended.power(), 100);
    assert_eq!(next.log.notes(), notes, "nothing new is to be noted");
    assert_eq!(next.log.entries().len() - acts, 2, "one act and its outcome");
    next.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_process_that_is_killed_leaves_nothing_to_believe() {
    let ended = Ended::after(Control::default()).await;
    let mut second = ended.next(Control::default());
    second.until("complete", 10, |state| state.is_complete).await;
    let looks = ended.looks();
    let mut third = after_a_kill(&ended.homeserver, &second, Control::default());
    third.until("complete", 10, |state| state.is_complete).await;
    assert_eq!(ended.looks() - looks, ROOMS);
    third.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_sync_tells_before_the_rooms_are_known_is_not_forgotten() {
    let ended = Ended::after(Control::default()).await;
    let looks = ended.looks();
    ended.demote();
    ended.homeserver.fail("rooms", 1, || HomeserverError::Unreachable {
        host: "homeserver".to_owned(),
        problem: "a fault of the test".to_owned(),
    });
    let mut next = ended.next(Control::default());
    next.hints.send(Hint::Room(ended.room.clone())).unwrap();
    next.until("a failure", 10, |state| state.problem.is_some()).await;
    next.until("complete", 30, |state| state.is_complete).await;
    assert_eq!(ended.power(), 100);
    assert!(ended.looks() - looks < 10, "the others are believed");
    next.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_sync_tells_at_the_end_is_looked_at_by_the_next_process() {
    let mut ended = Ended::after(Control::default()).await;
    ended.bot = ended.next(Control::default());
    ended.bot.until("complete", 10, |state| state.is_complete).await;
    ended.demote();
    ended.homeserver.set_latency(Duration::from_secs(1));
    ended.bot.hints.send(Hint::Room(ended.room.clone())).unwrap();
    ended.bot.end().await;
    assert_eq!(ended.power(), 0, "it was too late");
    ended.homeserver.set_latency(Duration::ZERO);
    let mut next = ended.next(Control::default());
    next.until("complete", 30, |state| state.is_complete).await;
    assert_eq!(ended.power(), 100);
    next.stop().await;
}

#[tokio::test(start_paused = true)]
async fn other_wishes_are_a_reason_to_look_at_every_room() {
    let ended = Ended::after(Control::default()).await;
    let looks = ended.looks();
    let selection = RoomSelection { deny: vec![ended.room.clone()], ..RoomSelection::default() };
    let mut next = ended.next(Control { selection, paused: false });
    next.until("complete", 20, |state| state.is_complete).await;
    assert!(next.state.borrow().ignored.contains(&ended.room));
    assert_eq!(ended.looks() - looks, ROOMS);
    next.stop().await;
}

#[tokio::test(start_paused = true)]
async fn rooms_that_were_not_judged_by_the_last_wishes_are_looked_at() {
    let homeserver = server();
    let alice = user(&homeserver, "alice");
    let room = homeserver.create_room(&alice, "11", RoomKind::Private);
    let mut bot = start(&homeserver, "auditbot", Control::default());
    bot.covered(1, 10).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    // It asks, and is asked to end before the answer comes.
    homeserver.set_latency(Duration::from_secs(8));
    let asked = homeserver.calls().len();
    while homeserver.calls().len() == asked {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let selection = RoomSelection { deny: vec![room.clone()], ..RoomSelection::default() };
    let denied = Control { selection, paused: false };
    bot.control.send_replace(denied.clone());
    tokio::time::sleep(Duration::from_millis(1)).await;
    bot.end().await;
    homeserver.set_latency(Duration::ZERO);
    let admin = homeserver.add_user(&localpart("second-admin"), true);
    let mut next = continue_as(&homeserver, &bot, admin, denied);
    next.until("complete", 20, |state| state.is_complete).await;
    assert!(next.state.borrow().ignored.contains(&room));
    next.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_room_that_was_put_below_an_excluded_space_is_left_out_at_once() {
    let homeserver = server();
    let alice = user(&homeserver, "alice");
    let space = homeserver.create_room(&alice, "11", RoomKind::Space);
    let rooms: Vec<_> = (0..20).map(|_| homeserver.create_room(&alice, "11", RoomKind::Private)).collect();
    let selection = RoomSelection { exclude_spaces: vec![space.clone()], ..RoomSelection::default() };
    let control = Control { selection, paused: false };
    let mut bot = start(&homeserver, "auditbot", control.clone());
    bot.covered(20, 60).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    bot.end().await;
    let child = json!({"via": ["here.org"]});
    homeserver.force_state(&space, &alice, "m.space.child", rooms[7].as_str(), child);
    let looks = homeserver.count("room_state");
    let admin = homeserver.add_user(&localpart("second-admin"), true);
    let mut next = continue_as(&homeserver, &bot, admin, control);
    next.until("complete", 20, |state| state.is_complete).await;
    assert!(next.state.borrow().ignored.contains(&rooms[7]));
    assert!(homeserver.count("room_state") - looks < 10, "the others are believed");
    next.stop().await;
}
