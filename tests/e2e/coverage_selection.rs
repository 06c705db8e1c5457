//! What the selection leaves out, against a real Synapse: not a trace of the bot may be in those rooms, whoever makes them and
//! whatever becomes of them. No cluster is needed.

use std::time::Duration;

use ems_bots::{
    coverage::{Control, CoverageState},
    domain::{RoomId, UserId, selection::RoomSelection},
};
use serde_json::{Value, json};

use super::support::{
    Synapse,
    coverage_bot::{Bot, start, start_with},
    rooms::{act, create_room, key},
    services::Person,
    unique,
};

fn ok((status, answer): (u16, Value)) -> Value {
    assert_eq!(status, 200, "{answer}");
    answer
}

fn id(room: &str) -> RoomId {
    RoomId::parse(room.to_owned()).unwrap()
}

/// A direct chat as clients make it; the guest has not answered.
async fn chat(synapse: &Synapse, maker: &Person, guest: &Person) -> String {
    let body = json!({"preset": "trusted_private_chat", "is_direct": true, "invite": [guest.user_id]});
    create_room(synapse, maker, body).await
}

async fn put_into(synapse: &Synapse, owner: &Person, space: &str, room: &str) {
    let verb = format!("state/m.space.child/{room}");
    ok(act(synapse, owner, space, &verb, json!({"via": [synapse.server_name]})).await);
}

async fn replaced(synapse: &Synapse, owner: &Person, room: &str) -> String {
    let answer = ok(act(synapse, owner, room, "upgrade", json!({"new_version": "12"})).await);
    answer["replacement_room"].as_str().unwrap().to_owned()
}

async fn is_untouched(bot: &Bot, room: &str) {
    let state = bot.room(room).await;
    assert!(!state.contains_key(&key("m.room.member", bot.user.as_str())), "{room}: {state:?}");
}

fn are_left_out(state: &CoverageState, of_the_doctor: u64, in_the_space: u64, denied: u64) -> bool {
    let excluded = |reason: &str| state.totals.excluded.get(reason).copied().unwrap_or_default();
    excluded("excluded_user") == of_the_doctor
        && excluded("excluded_space") == in_the_space
        && excluded("denied") == denied
        && state.totals.pending == 0
}

struct Stage {
    synapse: Synapse,
    patient: Person,
    doctor: Person,
    space: String,
    denied: String,
}

impl Stage {
    async fn set() -> Self {
        let synapse = Synapse::up(&unique("covselect"));
        let (patient, doctor) = (synapse.register("patient"), synapse.register("doctor"));
        let space = json!({"preset": "private_chat", "creation_content": {"type": "m.space"}});
        let space = create_room(&synapse, &patient, space).await;
        let denied = json!({"preset": "private_chat", "room_version": "11"});
        let denied = create_room(&synapse, &patient, denied).await;
        Self { synapse, patient, doctor, space, denied }
    }

    fn wishes(&self) -> RoomSelection {
        RoomSelection {
            exclude_users: vec![UserId::parse(self.doctor.user_id.clone()).unwrap()],
            exclude_spaces: vec![id(&self.space)],
            deny: vec![id(&self.denied)],
            ..RoomSelection::default()
        }
    }

    /// Chats that the doctor took part in: answered, declined, left by either.
    async fn chats(&self) -> Vec<String> {
        let Self { synapse, patient, doctor, .. } = self;
        let mut chats = Vec::new();
        for (maker, guest) in [(patient, doctor), (doctor, patient)] {
            let open = chat(synapse, maker, guest).await;
            let declined = chat(synapse, maker, guest).await;
            ok(act(synapse, guest, &declined, "leave", json!({})).await);
            let left = chat(synapse, maker, guest).await;
            ok(act(synapse, guest, &left, "join", json!({})).await);
            ok(act(synapse, doctor, &left, "leave", json!({})).await);
            chats.extend([open, declined, left]);
        }
        chats
    }

    /// Rooms that are in the space as clients put them there: they say so at once, the space says it a moment later.
    async fn rooms_of_the_space(&self) -> Vec<String> {
        let Self { synapse, patient, space, .. } = self;
        let mut rooms = Vec::new();
        for preset in ["private_chat", "public_chat"] {
            let parent = json!({"type": "m.space.parent", "state_key": space, "content": {"via": [synapse.server_name], "canonical": true}});
            let room =
                create_room(synapse, patient, json!({"preset": preset, "initial_state": [parent]})).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            put_into(synapse, patient, space, &room).await;
            rooms.push(room);
        }
        rooms
    }
}

#[tokio::test]
async fn the_bot_leaves_no_trace_in_rooms_that_are_left_out() {
    let stage = Stage::set().await;
    let Stage { synapse, patient, space, denied, .. } = &stage;
    // Some are there before the bot, some are made while it looks.
    let mut left_out = stage.chats().await;
    left_out.extend([space.clone(), denied.clone()]);
    let mut bot = start_with(synapse, "auditbot", Control { selection: stage.wishes(), paused: false }).await;
    bot.until("what was there", 60, |state| are_left_out(state, 6, 1, 1)).await;
    let mut new = stage.chats().await;
    new.extend(stage.rooms_of_the_space().await);
    bot.until("what is new", 60, |state| are_left_out(state, 12, 3, 1)).await;
    // What replaces one of them is none of the bot's business either.
    new.push(replaced(synapse, patient, denied).await);
    let upgraded = new[0].clone();
    new.push(replaced(synapse, patient, &upgraded).await);
    bot.until("what replaces them", 60, |state| are_left_out(state, 13, 3, 2)).await;
    for room in left_out.iter().chain(&new) {
        is_untouched(&bot, room).await;
    }
    assert_eq!(bot.log.acts.lock().unwrap().len(), 0);
    // What only says that it belongs to them is covered.
    let parent =
        json!({"type": "m.space.parent", "state_key": space, "content": {"via": [synapse.server_name]}});
    let creation = json!({"predecessor": {"room_id": denied, "event_id": "$x"}});
    for body in [json!({"initial_state": [parent]}), json!({"creation_content": creation})] {
        create_room(synapse, patient, body).await;
    }
    bot.covered(2, 30).await;
    bot.stop().await;
}

#[tokio::test]
async fn every_other_wish_is_obeyed_and_taken_back_without_a_restart() {
    let synapse = Synapse::up(&unique("covwishes"));
    let (alice, bridge) = (synapse.register("alice"), synapse.register("bridge_alice"));
    let body = || json!({"preset": "private_chat"});
    let (first, second) =
        (create_room(&synapse, &alice, body()).await, create_room(&synapse, &bridge, body()).await);
    let mut bot = start(&synapse, "auditbot").await;
    bot.covered(2, 30).await;
    let place = ("join".to_owned(), 100);
    let mut rooms = 2;
    let nothing = RoomSelection::default;
    let only = RoomSelection { only: vec![id(&first)], ..nothing() };
    let pattern = RoomSelection { creator_pattern: regex::Regex::new("^@alice").ok(), ..nothing() };
    for (outside, selection, reason) in [(1, only, "not_selected"), (2, pattern, "creator_pattern")] {
        bot.control.send_modify(|control| control.selection = selection);
        bot.until(reason, 30, |state| {
            state.totals.excluded.get(reason) == Some(&outside) && state.ignored.contains(&id(&second))
        })
        .await;
        let new = create_room(&synapse, &bridge, body()).await;
        bot.until(reason, 30, |state| state.totals.excluded.get(reason) == Some(&(outside + 1))).await;
        is_untouched(&bot, &new).await;
        assert_eq!(synapse.standing(&second, bot.user.as_str()).await, place, "it stays where it is");
        rooms += 1;
        bot.control.send_modify(|control| control.selection = nothing());
        bot.covered(rooms, 30).await;
    }
    // A room in which nothing has happened for long is not entered; one in which something happens is.
    bot.control.send_modify(|control| {
        control.selection = RoomSelection {
            deny: vec![id(&first)],
            minimum_last_active: Some(Duration::from_secs(1)),
            ..nothing()
        };
        control.paused = true;
    });
    let idle = create_room(&synapse, &alice, body()).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    bot.control.send_modify(|control| control.paused = false);
    bot.until("idle", 30, |state| state.totals.excluded.get("inactive") == Some(&1)).await;
    is_untouched(&bot, &idle).await;
    bot.control.send_modify(|control| control.selection.minimum_last_active = Some(Duration::from_hours(1)));
    bot.until("no longer idle", 30, |state| !state.totals.excluded.contains_key("inactive")).await;
    assert_eq!(synapse.standing(&idle, bot.user.as_str()).await, place);
    bot.stop().await;
}
