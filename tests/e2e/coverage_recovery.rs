//! Rooms that the bot cannot simply be let into, against a real Synapse with its default limits, in every
//! room version that makes a difference. No cluster is needed.

use std::{collections::BTreeMap, time::Duration};

use ems_bots::{
    coverage::{ActOutcome, Control, Hint, planner::StepKind},
    domain::RoomId,
};
use serde_json::{Value, json};

use super::support::{
    Synapse,
    coverage_bot::{Bot, start, start_with},
    eventually,
    rooms::{act, create_room, key},
    services::{Person, dev_json, urlencode},
    unique,
};

const VERSIONS: [&str; 3] = ["10", "11", "12"];

struct People {
    alice: Person,
    bob: Person,
    carol: Person,
}

/// A room of Alice's, with Bob in it.
async fn room_with_bob(synapse: &Synapse, people: &People, creator: &Person, mut body: Value) -> String {
    body["preset"] = json!("private_chat");
    body["invite"] = json!([people.bob.user_id]);
    let room = create_room(synapse, creator, body).await;
    ok(act(synapse, &people.bob, &room, "join", json!({})).await);
    room
}

fn ok((status, answer): (u16, Value)) {
    assert_eq!(status, 200, "{answer}");
}

type State = BTreeMap<(String, String), Value>;

/// Everything but what is the bot's own.
fn without_bot(bot: &str, mut state: State) -> State {
    state.remove(&key("m.room.member", bot));
    if let Some(users) = state
        .get_mut(&key("m.room.power_levels", ""))
        .and_then(|levels| levels.get_mut("users"))
        .and_then(Value::as_object_mut)
    {
        users.remove(bot);
    }
    // Who left again has left, whatever stood in their membership besides.
    for ((event_type, _), content) in &mut state {
        if event_type == "m.room.member" {
            *content = json!(content["membership"]);
        }
    }
    state
}

/// A room in some trouble, with what is to become of it: the bot's power, and the acts it takes.
struct Trouble {
    name: String,
    room: String,
    power: i64,
    acts: Vec<StepKind>,
}

async fn troubles(synapse: &Synapse, people: &People, version: &str) -> Vec<Trouble> {
    use StepKind::{Invite, Join, MakeAdmin, Raise, Recall, Release, Return, Unban};
    let People { alice, bob, carol } = people;
    let bot = json!({ "user_id": synapse.user_id("auditbot") });
    let body = || json!({ "room_version": version });
    let mut troubles = Vec::new();
    let mut add = |name: &str, room: &String, power: i64, acts: &[StepKind]| {
        let (name, room, acts) = (format!("{name}, version {version}"), room.clone(), acts.to_vec());
        troubles.push(Trouble { name, room, power, acts });
    };
    let back = [Recall, Return, MakeAdmin, Release, Join];

    let room = room_with_bob(synapse, people, alice, body()).await;
    ok(act(synapse, alice, &room, "leave", json!({})).await);
    add("the creator left", &room, 100, &back);

    let room = room_with_bob(synapse, people, carol, body()).await;
    // She is deactivated further down, and thereby leaves.
    add("the creator is deactivated", &room, 100, &back);

    let room = create_room(synapse, alice, json!({ "preset": "public_chat", "room_version": version })).await;
    ok(act(synapse, bob, &room, "join", json!({})).await);
    ok(act(synapse, alice, &room, "leave", json!({})).await);
    add("the creator left a public room", &room, 100, &[Join, Return, MakeAdmin, Release]);

    let room = room_with_bob(synapse, people, alice, body()).await;
    let levels = json!({ "users_default": 60, "users": { synapse.user_id("auditbot"): 10 } });
    ok(act(synapse, alice, &room, "state/m.room.power_levels", levels).await);
    ok(act(synapse, alice, &room, "leave", json!({})).await);
    if version == "12" {
        // The creator still stands above every number, and can give an admin's power.
        add("power by default, and a creator who left", &room, 100, &back);
    } else {
        add("power by default only", &room, 60, &[Raise, Invite, Join]);
    }

    let room = room_with_bob(synapse, people, alice, body()).await;
    ok(act(synapse, alice, &room, "invite", bot.clone()).await);
    ok(act(synapse, alice, &room, "kick", bot.clone()).await);
    add("kicked", &room, 100, &[MakeAdmin, Join]);

    let room = room_with_bob(synapse, people, alice, body()).await;
    ok(act(synapse, alice, &room, "ban", bot.clone()).await);
    add("banned", &room, 100, &[Unban, MakeAdmin, Join]);

    let room = room_with_bob(synapse, people, alice, body()).await;
    ok(act(synapse, alice, &room, "ban", bot).await);
    ok(act(synapse, alice, &room, "leave", json!({})).await);
    add("banned, and the creator left", &room, 100, &[Recall, Return, Unban, MakeAdmin, Release, Join]);
    troubles
}

#[tokio::test]
async fn every_room_that_somebody_could_let_the_bot_into_is_recovered_and_left_as_it_was() {
    let synapse = Synapse::up(&unique("covrecover"));
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| synapse.register(name));
    let people = People { alice, bob, carol };
    let mut all = Vec::new();
    for version in VERSIONS {
        all.extend(troubles(&synapse, &people, version).await);
        let dead = json!({ "preset": "private_chat", "room_version": version });
        let dead = create_room(&synapse, &people.alice, dead).await;
        ok(act(&synapse, &people.alice, &dead, "leave", json!({})).await);
    }
    let path = format!("/_synapse/admin/v1/deactivate/{}", urlencode(&people.carol.user_id));
    assert_eq!(synapse.admin("POST", &path, Some(json!({ "erase": false }))).await.0, 200);
    // Synapse says that it is done before she has left her rooms.
    for trouble in all.iter().filter(|trouble| trouble.name.starts_with("the creator is deactivated")) {
        eventually("she has left", Duration::from_mins(1), || async {
            let standing = synapse.standing(&trouble.room, &people.carol.user_id).await.0;
            if standing == "leave" { Ok(()) } else { Err(standing) }
        })
        .await;
    }

    let mut bot = start_paused(&synapse).await;
    let mut before = Vec::new();
    for trouble in &all {
        before.push(without_bot(bot.user.as_str(), bot.room(&trouble.room).await));
    }
    bot.control.send_modify(|control| control.paused = false);
    let limited = all.iter().filter(|trouble| trouble.power < 100).count() as u64;
    bot.until("every room is settled", 120, |state| {
        state.totals.pending == 0
            && state.totals.covered == all.len() as u64 - limited
            && state.totals.limited.get("no_local_admin") == Some(&limited)
            && state.totals.blocked.get("nobody_local") == Some(&(VERSIONS.len() as u64))
    })
    .await;
    for (trouble, before) in all.iter().zip(before) {
        let Trouble { name, room, power, acts } = trouble;
        let standing = synapse.standing(room, bot.user.as_str()).await;
        assert_eq!(standing, ("join".to_owned(), *power), "{name}");
        assert_eq!(without_bot(bot.user.as_str(), bot.room(room).await), before, "{name}");
        let log = bot.log.acts.lock().unwrap().clone();
        let here: Vec<_> = log.iter().filter(|(act, _)| act.room_id.as_str() == room).collect();
        let kinds: Vec<StepKind> = here.iter().map(|(act, _)| act.kind).collect();
        assert_eq!(kinds, *acts, "{name}");
        for (act, outcome) in here {
            let Some(ActOutcome::Done { sent }) = outcome else { panic!("{name}: {act:?} {outcome:?}") };
            // Whatever the homeserver sent in a person's name is known by its event.
            assert_eq!(sent.is_empty(), act.on_behalf_of.is_none(), "{name}: {act:?} {sent:?}");
            assert!(sent.iter().all(|event| Some(&event.sender) == act.on_behalf_of.as_ref()), "{name}");
        }
    }
    bot.stop().await;
}

/// A bot that looks, but does not act yet.
async fn start_paused(synapse: &Synapse) -> Bot {
    let mut bot = start_with(synapse, "auditbot", Control { paused: true, ..Control::default() }).await;
    bot.until("looked", 60, |state| state.totals.pending > 0).await;
    bot
}

#[tokio::test]
async fn an_invitation_that_a_module_refuses_is_said_and_made_when_it_no_longer_is() {
    let name = unique("covrefused");
    let user = format!("@auditbot:{name}.internal");
    let module = json!({"module": "tests.real.refuser.Refuser", "config": {"refused": user}});
    let extra = json!({"modules": [module]}).to_string();
    let synapse = Synapse::up_with(&name, &["--extra", "-"], Some(&extra));
    let alice = synapse.register("alice");
    let mut closed = Vec::new();
    for version in VERSIONS {
        create_room(&synapse, &alice, json!({"preset": "public_chat", "room_version": version})).await;
        let body = json!({"preset": "private_chat", "room_version": version});
        closed.push(create_room(&synapse, &alice, body).await);
    }
    let mut bot = start(&synapse, "auditbot").await;
    assert_eq!(bot.user.as_str(), user);
    // Into a public room it needs no invitation.
    bot.until("refused", 60, |state| {
        let totals = &state.totals;
        totals.covered == 3 && totals.blocked.get("refused") == Some(&3) && totals.pending == 0
    })
    .await;
    for room in &closed {
        assert_ne!(synapse.standing(room, &user).await.0, "join", "{room}");
    }
    // The homeserver goes on without the module.
    dev_json(&["synapse", "up", &name, "--extra", "-"], Some(r#"{"modules": []}"#));
    bot.control.send_modify(|_| {});
    bot.covered(6, 60).await;
    for room in &closed {
        assert_eq!(synapse.standing(room, &user).await, ("join".to_owned(), 100), "{room}");
    }
    bot.stop().await;
}

#[tokio::test]
async fn what_a_creator_does_to_the_bot_again_and_again_is_mended_each_time() {
    let synapse = Synapse::up(&unique("covmend"));
    let [alice, bob] = ["alice", "bob"].map(|name| synapse.register(name));
    let room = create_room(&synapse, &alice, json!({ "preset": "private_chat", "room_version": "12" })).await;
    let mut bot = start(&synapse, "auditbot").await;
    bot.covered(1, 30).await;
    let user = json!({ "user_id": bot.user });
    let place = ("join".to_owned(), 100);
    for verb in ["kick", "ban", "kick"] {
        ok(act(&synapse, &alice, &room, verb, user.clone()).await);
        bot.hints.send(Hint::Room(RoomId::parse(room.clone()).unwrap())).unwrap();
        eventually(verb, Duration::from_secs(30), || async {
            let standing = synapse.standing(&room, bot.user.as_str()).await;
            if standing == place { Ok(()) } else { Err(format!("{standing:?}")) }
        })
        .await;
    }
    // Up to version 11 nobody can remove the bot once it has as much power as they have.
    for version in ["10", "11"] {
        let room =
            create_room(&synapse, &bob, json!({ "preset": "private_chat", "room_version": version })).await;
        eventually("the bot is there", Duration::from_secs(30), || async {
            let standing = synapse.standing(&room, bot.user.as_str()).await;
            if standing == place { Ok(()) } else { Err(format!("{standing:?}")) }
        })
        .await;
        for verb in ["kick", "ban"] {
            assert_eq!(act(&synapse, &bob, &room, verb, user.clone()).await.0, 403, "version {version}");
        }
        let levels = json!({ "users": { &bob.user_id: 100 } });
        assert_eq!(act(&synapse, &bob, &room, "state/m.room.power_levels", levels).await.0, 403);
    }
    bot.stop().await;
}
