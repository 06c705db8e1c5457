//! Coverage against a real Synapse with its default limits: every kind of room, both bots at once,
//! rooms that are just being created. No cluster is needed.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use ems_bots::{
    coverage::{
        ActOutcome, Hint,
        planner::{FUNCTIONAL_MEMBERS, Invitation, StepKind},
    },
    domain::{DeviceId, Failure, Localpart, RoomId, UserId},
    homeserver::{
        Connect, NewAccount,
        synapse::{Connection, Settings},
    },
};
use secrecy::SecretString;
use serde_json::{Value, json};

use super::support::{
    Synapse,
    coverage_bot::{Bot, connection, register_admin, secret, start},
    eventually,
    rooms::{act, create_room, key},
    services::{Person, urlencode},
    unique,
};

fn encryption() -> Value {
    json!({ "type": "m.room.encryption", "content": { "algorithm": "m.megolm.v1.aes-sha2" } })
}

/// One room of every kind in a version; the direct chat is the last.
async fn rooms_of(synapse: &Synapse, alice: &Person, bob: &Person, version: &str) -> Vec<String> {
    let rule = |rule: Value| json!({ "type": "m.room.join_rules", "content": rule });
    let restricted = json!({ "join_rule": "restricted", "allow": [] });
    let hidden =
        json!({ "type": "m.room.history_visibility", "content": { "history_visibility": "joined" } });
    let kinds = [
        json!({ "preset": "public_chat", "name": "public" }),
        json!({ "preset": "private_chat", "name": "private" }),
        json!({ "preset": "private_chat", "name": "encrypted", "initial_state": [encryption()] }),
        json!({ "preset": "private_chat", "name": "space", "creation_content": { "type": "m.space" } }),
        json!({ "preset": "private_chat", "name": "knock", "initial_state": [rule(json!({ "join_rule": "knock" }))] }),
        json!({ "preset": "private_chat", "name": "restricted", "initial_state": [rule(restricted)] }),
        json!({ "preset": "private_chat", "name": "hidden history", "initial_state": [hidden] }),
        json!({ "preset": "trusted_private_chat", "is_direct": true, "invite": [bob.user_id], "initial_state": [encryption()] }),
    ];
    let mut rooms = Vec::new();
    for mut kind in kinds {
        kind["room_version"] = json!(version);
        rooms.push(create_room(synapse, alice, kind).await);
    }
    let (status, answer) = act(synapse, bob, rooms.last().unwrap(), "join", json!({})).await;
    assert_eq!(status, 200, "{answer}");
    rooms
}

/// The events that a bot's acts are said to have made the homeserver send.
fn sent_by(bot: &Bot) -> BTreeSet<String> {
    let acts = bot.log.acts.lock().unwrap();
    let outcomes = acts.iter().filter_map(|(_, outcome)| outcome.as_ref());
    let sent = outcomes.flat_map(|(ActOutcome::Done { sent } | ActOutcome::Failed { sent, .. })| sent);
    sent.map(|event| event.event_id.clone()).collect()
}

#[tokio::test]
async fn both_bots_cover_rooms_of_every_kind_at_once_under_default_limits() {
    let synapse = Synapse::up(&unique("covkinds"));
    let (alice, bob) = (synapse.register("alice"), synapse.register("bob"));
    let mut rooms = Vec::new();
    let mut chats = Vec::new();
    for version in ["10", "11", "12"] {
        let made = rooms_of(&synapse, &alice, &bob, version).await;
        chats.push(made.last().unwrap().clone());
        rooms.extend(made);
    }
    let started = Instant::now();
    let (mut audit, mut admin) = (start(&synapse, "auditbot").await, start(&synapse, "adminbot").await);
    audit.covered(rooms.len(), 60).await;
    admin.covered(rooms.len(), 60).await;
    println!("{} rooms covered by both bots in {:?}", rooms.len(), started.elapsed());
    let acts = audit.log.acts.lock().unwrap().clone();
    for (act, outcome) in acts.iter().filter(|(act, _)| act.kind == StepKind::MakeAdmin) {
        // In a direct chat both have power 100, and the homeserver takes one of them.
        let whose = act.on_behalf_of.as_deref().expect("somebody");
        assert!(whose == alice.user_id || whose == bob.user_id, "{whose}");
        match outcome {
            Some(ActOutcome::Done { sent }) => {
                assert!(sent.iter().all(|event| event.sender == whose), "{sent:?}");
                assert!(sent.iter().any(|event| event.event_type == "m.room.power_levels"), "{sent:?}");
            }
            // Both asked at the same moment: what this one would have written takes the other's power away.
            Some(ActOutcome::Failed { category: "refused", .. }) => {}
            other => panic!("{act:?} {other:?}"),
        }
    }
    // And those that are made while they look. There a step may come too soon, and is repeated.
    for version in ["10", "11", "12"] {
        let made = rooms_of(&synapse, &alice, &bob, version).await;
        chats.push(made.last().unwrap().clone());
        rooms.extend(made);
    }
    audit.covered(rooms.len(), 60).await;
    admin.covered(rooms.len(), 60).await;
    // One bot's write can replace the other's; both look again after what they did.
    for room in &rooms {
        for bot in [&audit.user, &admin.user] {
            eventually("both bots in their places", Duration::from_secs(20), || async {
                let standing = synapse.standing(room, bot.as_str()).await;
                if standing == ("join".to_owned(), 100) {
                    Ok(())
                } else {
                    Err(format!("{room}: {standing:?}"))
                }
            })
            .await;
        }
    }
    tokio::time::timeout(Duration::from_secs(20), async {
        for chat in &chats {
            loop {
                let state = audit.room(chat).await;
                let listed = state.get(&key(FUNCTIONAL_MEMBERS, "")).map(|c| c["service_members"].clone());
                let mut listed: Vec<String> =
                    serde_json::from_value(listed.unwrap_or_default()).unwrap_or_default();
                listed.sort();
                if listed == [admin.user.to_string(), audit.user.to_string()] {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    })
    .await
    .expect("both bots are functional members of every direct chat");
    for room in rooms.iter().filter(|room| !chats.contains(room)) {
        assert!(!audit.room(room).await.contains_key(&key(FUNCTIONAL_MEMBERS, "")), "{room}");
    }
    // What they wrote into the same room in the same moment is not taken for each other's.
    let (of_audit, of_admin) = (sent_by(&audit), sent_by(&admin));
    assert!(of_audit.is_disjoint(&of_admin), "{:?}", of_audit.intersection(&of_admin));
    // What one of them does is no occasion for the other, once each has looked at what it did.
    let done = || [&audit, &admin].map(|bot| bot.log.acts.lock().unwrap().len());
    let before = done();
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(done(), before, "both are at rest");
    audit.stop().await;
    admin.stop().await;
}

#[tokio::test]
async fn a_new_room_is_covered_within_a_second() {
    let synapse = Synapse::up(&unique("covnew"));
    let alice = synapse.register("alice");
    create_room(&synapse, &alice, json!({ "preset": "private_chat" })).await;
    let mut bot = start(&synapse, "auditbot").await;
    bot.covered(1, 30).await;
    let mut took = Vec::new();
    for count in 2..12 {
        let body = json!({ "preset": "private_chat", "initial_state": [encryption()] });
        create_room(&synapse, &alice, body).await;
        let started = Instant::now();
        bot.covered(count, 30).await;
        took.push(started.elapsed());
        // Out of step with the polls.
        tokio::time::sleep(Duration::from_millis(137)).await;
    }
    took.sort();
    println!("from createRoom's answer to covered: median {:?}, longest {:?}", took[5], took[9]);
    assert!(took[5] < Duration::from_secs(1), "{took:?}");
    bot.stop().await;
    let admin = connection(&synapse).admin(register_admin(&synapse, "reader").await);
    let inhabited = admin.rooms().await.unwrap().inhabited;
    // One that everybody has left is none of them.
    let left = create_room(&synapse, &alice, json!({ "preset": "private_chat" })).await;
    assert_eq!(act(&synapse, &alice, &left, "leave", json!({})).await.0, 200);
    let newest = create_room(&synapse, &alice, json!({ "preset": "private_chat" })).await;
    eventually("the smallest room", Duration::from_secs(30), || async {
        let list = admin.smallest_rooms(1).await.unwrap();
        let rooms: Vec<_> = list.iter().map(|room| room.room_id.as_str()).collect();
        let number = admin.inhabited_rooms().await.unwrap();
        if (&*rooms, number) == (&[&*newest], inhabited + 1) {
            Ok(())
        } else {
            Err(format!("{list:?} {number}"))
        }
    })
    .await;
}

#[tokio::test]
async fn an_upgraded_room_is_followed_and_the_old_one_is_kept() {
    let synapse = Synapse::up(&unique("covupgrade"));
    let alice = synapse.register("alice");
    let mut bot = start(&synapse, "auditbot").await;
    let (user, place) = (bot.user.to_string(), ("join".to_owned(), 100));
    for (number, (old, new)) in [("10", "11"), ("11", "12"), ("12", "12")].into_iter().enumerate() {
        let room =
            create_room(&synapse, &alice, json!({"preset": "private_chat", "room_version": old})).await;
        bot.covered(2 * number + 1, 30).await;
        let (status, answer) = act(&synapse, &alice, &room, "upgrade", json!({"new_version": new})).await;
        assert_eq!(status, 200, "{answer}");
        let replacement = answer["replacement_room"].as_str().unwrap();
        bot.covered(2 * number + 2, 30).await;
        assert_eq!(synapse.standing(replacement, &user).await, place, "from {old} to {new}");
        assert_eq!(synapse.standing(&room, &user).await, place, "from {old} to {new}");
        let tombstone = bot.room(&room).await[&key("m.room.tombstone", "")].clone();
        assert_eq!(tombstone["replacement_room"], replacement);
    }
    bot.stop().await;
}

#[tokio::test]
async fn rooms_under_creation_are_never_harmed() {
    let synapse = Synapse::up(&unique("covhammer"));
    let alice = synapse.register("alice");
    let (mut audit, mut admin) = (start(&synapse, "auditbot").await, start(&synapse, "adminbot").await);
    // Hints at every moment make the loop look far more often than polling does.
    let noise = {
        let (hints, looking) = (audit.hints.clone(), audit.admin.user_id().clone());
        let reader = connection(&synapse).admin(register_admin(&synapse, "noise").await);
        tokio::spawn(async move {
            while let Ok(list) = reader.rooms().await {
                for room in list.rooms {
                    if hints.send(Hint::Room(room.room_id)).is_err() {
                        return looking;
                    }
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            looking
        })
    };
    let mut rooms = Vec::new();
    for number in 0..40 {
        let version = ["10", "11", "12"][number % 3];
        let name = format!("room {number}");
        let body = json!({
            "preset": "private_chat", "name": name, "room_version": version,
            "initial_state": [encryption()], "power_level_content_override": { "events": { "m.room.topic": 42 } },
        });
        rooms.push((create_room(&synapse, &alice, body).await, name, version));
    }
    noise.abort();
    audit.covered(rooms.len(), 120).await;
    admin.covered(rooms.len(), 120).await;
    for (room, name, version) in &rooms {
        let state = audit.room(room).await;
        assert_eq!(state[&key("m.room.name", "")]["name"], **name, "{room}");
        assert!(state.contains_key(&key("m.room.encryption", "")), "{name} lost its encryption");
        let power = &state[&key("m.room.power_levels", "")];
        assert_eq!(power["events"]["m.room.topic"], 42, "{name}");
        if *version != "12" {
            assert_eq!(power["users"][&alice.user_id], 100, "{name}: the creator lost its power");
        }
        for bot in [&audit.user, &admin.user] {
            assert_eq!(power["users"][bot.as_str()], 100, "{name}");
        }
    }
    audit.stop().await;
    admin.stop().await;
}

#[tokio::test]
async fn what_people_do_to_the_bot_is_answered() {
    let synapse = Synapse::up(&unique("covpeople"));
    let alice = synapse.register("alice");
    let mut rooms = Vec::new();
    for _ in 0..3 {
        let body = json!({ "preset": "private_chat", "room_version": "12" });
        rooms.push(create_room(&synapse, &alice, body).await);
    }
    let [kicked, banned, demoted] = &rooms[..] else { unreachable!() };
    let mut bot = start(&synapse, "auditbot").await;
    bot.covered(3, 30).await;
    let user = json!({ "user_id": bot.user });
    assert_eq!(act(&synapse, &alice, kicked, "kick", user.clone()).await.0, 200);
    assert_eq!(act(&synapse, &alice, banned, "ban", user).await.0, 200);
    let levels = json!({ "users": {} });
    assert_eq!(act(&synapse, &alice, demoted, "state/m.room.power_levels", levels).await.0, 200);
    bot.hints.send(Hint::Room(RoomId::parse(demoted.clone()).unwrap())).unwrap();
    for room in [kicked, banned, demoted] {
        let back = ("join".to_owned(), 100);
        eventually("the bot's old place", Duration::from_secs(30), || async {
            let standing = synapse.standing(room, bot.user.as_str()).await;
            if standing == back { Ok(()) } else { Err(format!("{standing:?}")) }
        })
        .await;
    }

    // Alice leaves the one room and invites the bot to another that the selection then forbids.
    let denied = create_room(&synapse, &alice, json!({ "preset": "private_chat" })).await;
    let room = RoomId::parse(denied.clone()).unwrap();
    bot.control.send_modify(|control| control.selection.deny = vec![room.clone()]);
    let invited = act(&synapse, &alice, &denied, "invite", json!({ "user_id": bot.user })).await;
    bot.hints.send(Hint::Invited(room, Invitation::default())).unwrap();
    bot.until("refused", 30, |state| state.totals.excluded.get("denied") == Some(&1)).await;
    // Whether it had joined before the selection changed or not: it is not in there now.
    assert!(matches!(invited.0, 200 | 403), "{invited:?}");
    let path = format!("/_synapse/admin/v1/users/{}/joined_rooms", urlencode(bot.user.as_str()));
    let (_, joined) = synapse.admin("GET", &path, None).await;
    assert!(!joined["joined_rooms"].as_array().unwrap().contains(&json!(denied)), "{joined}");
    bot.stop().await;
}

#[tokio::test]
async fn accounts_are_marked_from_the_start_and_every_call_works() {
    let synapse = Synapse::up(&unique("covport"));
    let connection = connection(&synapse);
    let entry = connection.entry();
    let device = DeviceId::parse("DEVICE-1").unwrap();
    // Its listener offers no keys, from which an entry without any credential would learn the name.
    assert_eq!(entry.server_name().await.unwrap(), None);
    assert!(!entry.versions().await.unwrap().is_empty());
    assert!(entry.login_flows().await.unwrap().iter().any(|flow| flow.kind == "m.login.password"));

    let shared = SecretString::from(synapse.registration_shared_secret.clone());
    let name = Localpart::parse("port-admin").unwrap();
    let wrong = entry.register_admin(&"wrong".into(), &name, &secret()).await.unwrap_err();
    assert_eq!(wrong.category(), "shared_secret_refused");
    let session = entry.register_admin(&shared, &name, &secret()).await.unwrap();
    let taken = entry.register_admin(&shared, &name, &secret()).await.unwrap_err();
    assert_eq!(taken.category(), "user_in_use");
    assert_eq!(entry.whoami(&session.access_token).await.unwrap(), session.user_id);
    assert_eq!(entry.whoami(&"nonsense".into()).await.unwrap_err().category(), "credential_refused");
    let admin = connection.admin(session.clone());
    assert!(admin.server_version().await.unwrap().starts_with("1."));

    let (localpart, password) = (Localpart::parse("auditbot").unwrap(), secret());
    let bot = UserId::parse(synapse.user_id("auditbot")).unwrap();
    assert_eq!(admin.account(&bot).await.unwrap(), None);
    let new = NewAccount {
        localpart: &localpart,
        password: &password,
        admin: false,
        display_name: "Audit Bot",
        ownership: "the-mark",
    };
    let made = admin.create_account(&new).await.unwrap();
    assert_eq!(made.ownership.as_deref(), Some("the-mark"));
    let seen = admin.account(&bot).await.unwrap().unwrap();
    assert_eq!(seen, made);
    assert_eq!(seen.display_name.as_deref(), Some("Audit Bot"));
    // Somebody who looked before it was made does not take it over by creating it again.
    let again = NewAccount { ownership: "another-mark", ..new.clone() };
    assert_eq!(admin.create_account(&again).await.unwrap_err().category(), "user_in_use");
    assert_eq!(admin.account(&bot).await.unwrap().unwrap().ownership, None);

    let wrong = entry.login(&localpart, &secret(), &device).await;
    assert_eq!(wrong.unwrap_err().category(), "password_refused");
    admin.reactivate(&bot, &password).await.unwrap();
    let own = entry.login(&localpart, &password, &device).await.unwrap();
    assert_eq!(own.device_id.as_ref(), Some(&device));
    assert_eq!(admin.devices(&bot).await.unwrap(), std::slice::from_ref(&device));
    assert_eq!(connection.admin(own.clone()).server_version().await.unwrap_err().category(), "not_admin");

    let puppet = connection.user(admin.puppet(&bot).await.unwrap());
    let room = RoomId::parse("!nowhere:nowhere.invalid").unwrap();
    assert!(puppet.join(&room, &[]).await.is_err());
    puppet.logout().await.unwrap();
    assert_eq!(puppet.join(&room, &[]).await.unwrap_err().category(), "credential_refused");

    admin.set_unlimited(&bot, true).await.unwrap();
    admin.set_unlimited(&bot, true).await.unwrap();
    admin.set_unlimited(&bot, false).await.unwrap();
    admin.set_display_name(&bot, "Other").await.unwrap();
    admin.delete_device(&bot, &device).await.unwrap();
    admin.delete_device(&bot, &device).await.unwrap();
    assert_eq!(admin.devices(&bot).await.unwrap(), []);
    admin.set_locked(&bot, true).await.unwrap();
    let locked = entry.login(&localpart, &password, &device).await.unwrap_err();
    assert_eq!(locked.category(), "locked");
    admin.set_locked(&bot, false).await.unwrap();

    let alice = synapse.register("alice");
    let made = create_room(&synapse, &alice, json!({ "preset": "private_chat" })).await;
    let room = RoomId::parse(made).unwrap();
    assert!(admin.last_activity(&room).await.unwrap().is_some());
    let levels = admin.room_state(&room, Some("m.room.power_levels")).await.unwrap();
    assert_eq!(levels.len(), 1);
    let fetched = admin.fetch_event(&levels[0].event_id).await.unwrap().unwrap();
    assert_eq!(fetched["content"], levels[0].content);
    assert_eq!(admin.fetch_event("$nothing").await.unwrap(), None);
    let unknown = RoomId::parse("!x/../y?z#:nowhere").unwrap();
    assert_eq!(admin.room_state(&unknown, None).await.unwrap_err().category(), "not_found");

    admin.deactivate(&bot).await.unwrap();
    assert!(admin.account(&bot).await.unwrap().unwrap().deactivated);
    let blocked = Settings::new(synapse.host_public_url.parse().unwrap());
    let blocked = Connection::new(&blocked).unwrap().admin(session);
    let blocked = blocked.account(&bot).await.unwrap_err();
    assert_eq!(blocked.category(), "refused");
    assert!(blocked.to_string().contains("not reachable from outside"), "the gateway's own words: {blocked}");
}
