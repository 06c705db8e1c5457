//! A bot that is removed leaves its rooms before its trail is closed: not while that is paused, no longer than it gets
//! anywhere, and not when it is called off.

use std::time::Duration;

use ems_bots::{
    domain::{Localpart, RoomId, ServerName, UserId},
    homeserver::{
        HomeserverError,
        mock::{MockHomeserver, RoomKind},
    },
    worker::cover::Farewells,
};
use serde_json::json;

use crate::worker_stage::{Running, Stage, until};

/// Longer than any test waits.
const NEVER: Duration = Duration::from_mins(10);

/// A bot, Alice, and a room in which the bot is the only admin.
struct Removal {
    stage: Stage,
    homeserver: MockHomeserver,
    bot: UserId,
    alice: UserId,
    room: RoomId,
}

impl Removal {
    async fn begin(farewells: Farewells) -> Self {
        let homeserver = MockHomeserver::new(ServerName::parse("example.org").unwrap());
        let user = |name: &str| homeserver.add_user(&Localpart::parse(name).unwrap(), false).user_id;
        let (bot, alice, founder) = (user("auditbot"), user("alice"), user("founder"));
        let room = homeserver.create_room(&founder, "11", RoomKind::Private);
        for member in [&bot, &alice] {
            homeserver.force_membership(&room, member, "join");
        }
        let mut stage = Stage::set().await;
        stage.leaves = Some((homeserver.clone(), farewells));
        stage.instructions.send_modify(|told| (told.deleting, told.leaves_rooms) = (true, true));
        let removal = Self { stage, homeserver, bot, alice, room };
        removal.admins(&[&removal.bot]);
        removal.homeserver.force_membership(&removal.room, &founder, "leave");
        removal
    }

    fn admins(&self, users: &[&UserId]) {
        let users: serde_json::Map<_, _> = users.iter().map(|user| (user.to_string(), json!(100))).collect();
        let levels = json!({"users": users});
        self.homeserver.force_state(&self.room, &self.bot, "m.room.power_levels", "", levels);
    }

    /// Another bot that is an admin, too.
    fn other_bot(&self, name: &str) -> UserId {
        let other = self.homeserver.add_user(&Localpart::parse(name).unwrap(), false).user_id;
        let mut world = self.homeserver.world();
        world.users.get_mut(other.as_str()).unwrap().account.user_type = Some("bot".to_owned());
        drop(world);
        self.homeserver.force_membership(&self.room, &other, "join");
        self.admins(&[&self.bot, &other]);
        other
    }

    fn is_in(&self) -> bool {
        self.homeserver.membership(&self.room, &self.bot) == "join"
    }

    fn alice_is_admin(&self) -> bool {
        self.homeserver.power(&self.room, &self.alice) == 100
    }
}

async fn until_said(running: &Running, words: &str) {
    until(words, || {
        let check = running.board.get().rooms_covered;
        let is_said = check.reason == "LeavingRooms" && check.message.contains(words);
        is_said.then_some(()).ok_or(check)
    })
    .await;
}

async fn until_closed(running: &Running) {
    until("closed", || {
        let report = running.board.get();
        report.closed.then_some(()).ok_or((report.rooms_covered, report.recording))
    })
    .await;
    let check = running.board.get().rooms_covered;
    assert_eq!(check.reason, "Closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_holds_it_up() {
    let removal = Removal::begin(Farewells { standstill: Duration::from_secs(5), others_first: NEVER }).await;
    removal.stage.instructions.send_modify(|told| told.coverage_paused = true);
    let running = removal.stage.start(None);
    until_said(&running, "ems.element.io/coverage-paused").await;
    assert!(removal.is_in() && !running.board.get().closed);
    assert_eq!(running.board.get().recording.reason, "LeavingRooms");
    removal.stage.instructions.send_modify(|told| (told.generation, told.coverage_paused) = (2, false));
    until_closed(&running).await;
    assert!(!removal.is_in() && removal.alice_is_admin());
    assert_eq!(running.board.get().generation, 2);
    running.stop().await.unwrap();
    let trail = removal.stage.trail().await;
    let actions: Vec<_> = trail.iter().map(|draft| draft.action.as_str()).collect();
    let (last, before) = actions.split_last().unwrap();
    assert_eq!(
        (*last, before.iter().filter(|action| **action == "bot.act.done").count()),
        ("bot.deleted", 2)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn it_can_be_called_off_and_what_is_changed_is_recorded() {
    let removal = Removal::begin(Farewells { standstill: NEVER, others_first: NEVER }).await;
    removal.stage.instructions.send_modify(|told| told.coverage_paused = true);
    let running = removal.stage.start(None);
    until_said(&running, "ems.element.io/coverage-paused").await;
    removal.stage.instructions.send_modify(|told| {
        told.generation = 2;
        told.rooms.notice = Some("changed meanwhile".to_owned());
    });
    until("the change is seen", || (running.board.get().generation == 2).then_some(()).ok_or(())).await;
    removal.stage.instructions.send_modify(|told| (told.generation, told.leaves_rooms) = (3, false));
    until_closed(&running).await;
    assert!(removal.is_in() && !removal.alice_is_admin());
    assert_eq!(running.board.get().generation, 3);
    running.stop().await.unwrap();
    let trail = removal.stage.trail().await;
    let of_change = |change: &str| trail.iter().any(|draft| format!("{:?}", draft.changes).contains(change));
    assert!(of_change("changed meanwhile"), "{trail:#?}");
    assert_eq!(trail.last().unwrap().action, "bot.deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_where_it_gets_nowhere() {
    let standstill = Duration::from_millis(300);
    let removal = Removal::begin(Farewells { standstill, others_first: Duration::ZERO }).await;
    removal.homeserver.fail_always("leave", || HomeserverError::Unreachable {
        host: "homeserver".to_owned(),
        problem: "a fault of the test".to_owned(),
    });
    let running = removal.stage.start(None);
    until_closed(&running).await;
    assert!(removal.is_in(), "the operator sees to what is left over");
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_bots_the_first_by_name_goes_first() {
    let removal = Removal::begin(Farewells { standstill: NEVER, others_first: Duration::from_secs(3) }).await;
    let other = removal.other_bot("adminbot");
    let running = removal.stage.start(None);
    until_said(&running, "waits for a moment").await;
    assert!(removal.is_in() && !removal.alice_is_admin());
    // That one is removed, too.
    removal.homeserver.force_membership(&removal.room, &other, "leave");
    until_closed(&running).await;
    assert!(!removal.is_in() && removal.alice_is_admin());
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_that_stays_is_waited_for_no_longer_than_a_moment() {
    for (name, others_first) in [("adminbot", Duration::from_millis(300)), ("zbot", NEVER)] {
        let removal = Removal::begin(Farewells { standstill: NEVER, others_first }).await;
        removal.other_bot(name);
        let running = removal.stage.start(None);
        until_closed(&running).await;
        assert!(!removal.is_in() && !removal.alice_is_admin(), "{name}");
        running.stop().await.unwrap();
    }
}
