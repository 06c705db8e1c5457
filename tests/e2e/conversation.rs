//! Two people talk; the bots are there, and the Audit Bot's trail tells what was said and changed.

use serde_json::{Value, json};

use crate::support::{
    Scene,
    scene::history,
    trail::{actor, change, ems_bots, relates},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_people_say_and_change_is_found_in_the_trail() {
    let mut scene = Scene::set("talk", &["alice", "bob", "carol"]).await;
    println!("-- a room from before the bots");
    let old = scene.room("alice", &["bob"], &[], json!({"name": "Archive"}));
    scene.client.send("alice", &old, "older than the bots");
    scene.bots(&[("AdminBot", "adminbot", json!({})), ("AuditBot", "auditbot", json!({}))]).await;

    let bots = ["adminbot", "auditbot"];
    let square = scene.room("alice", &["bob"], &bots, json!({"preset": "public_chat", "name": "Square"}));
    let board = scene.room("alice", &["bob"], &bots, json!({"encrypted": true, "name": "Board"}));
    let direct = json!({"encrypted": true, "isDirect": true, "preset": "trusted_private_chat"});
    let lunch = scene.room("alice", &["bob"], &bots, direct);
    println!("-- both bots are in every room with power 100");
    for room in [&old, &square, &board, &lunch] {
        for bot in bots {
            scene.wait_admin(room, bot).await;
        }
    }
    messages_are_records(&mut scene, [&square, &board, &lunch]).await;
    changes_have_before_and_after(&mut scene, &board).await;
    membership_and_settings_are_records(&mut scene, &square).await;
    the_search_narrows_down(&scene, &square, &board).await;
    the_direct_chat_stays_one(&mut scene, &lunch).await;
    the_admin_bots_trail_holds_no_conversation(&scene).await;
    the_numbers_are_dense(&scene);
    println!("-- the homeserver's message from before the bots is in its room, readable in the room");
    assert!(
        history(&scene.synapse, &old).await.iter().any(|one| one["content"]["body"] == "older than the bots")
    );
    scene.end().await;
}

async fn messages_are_records(scene: &mut Scene, rooms: [&String; 3]) {
    println!("-- plaintext, sender, room and trust of each message");
    let trail = scene.trail("auditbot").await;
    for (index, room) in rooms.into_iter().enumerate() {
        let text = format!("zanzibar says number{index}");
        let event = scene.client.send("alice", room, &text);
        scene.client.call("waitForEvent", json!({"user": "bob", "room": room, "event": event}));
        let record = trail.wait_for_text(&text).await;
        assert_eq!(record["action"], "message.sent", "{record}");
        assert_eq!(record["category"], "user_activity");
        assert_eq!(actor(&record), scene.user_id("alice"));
        assert!(relates(&record, "room", room, "in"), "{record}");
        assert!(relates(&record, "event", &event, "self"), "{record}");
        let trust = if index == 0 { "plain" } else { "verified_device" };
        assert_eq!(record["trust"], trust, "{record}");
        let source = record["source_raw"].as_str().expect("the event as received");
        assert_eq!(source.contains(&text), index == 0, "ciphertext is kept as received: {source}");
    }
    let reply = scene
        .client
        .call("reply", json!({"user": "bob", "room": rooms[1], "event": "$x", "body": "zanzibar reply"}));
    let record = trail.wait_for_text("zanzibar reply").await;
    assert!(relates(&record, "event", "$x", "replies_to"), "{record} {reply}");
}

async fn changes_have_before_and_after(scene: &mut Scene, board: &str) {
    println!("-- edit, reaction and redaction in the encrypted room");
    let trail = scene.trail("auditbot").await;
    let event = scene.client.send("bob", board, "sell everything");
    trail.wait_for_text("sell everything").await;
    let on = |extra: Value| {
        let mut all = json!({"room": board, "event": event});
        crate::support::tenant::merge(&mut all, extra);
        all
    };
    scene.client.call("edit", on(json!({"user": "bob", "body": "sell nothing"})));
    let edit = trail
        .wait_for(&["nothing", "--action", "message.edited"], "the edit", |one| {
            relates(one, "event", &event, "replaces")
        })
        .await;
    assert_eq!(change(&edit, "/content/body"), Some((json!("sell everything"), json!("sell nothing"))));
    let reaction = scene.client.call("react", on(json!({"user": "alice", "key": "👍"})));
    let added = trail
        .wait_for(&["--room", board, "--actor", &scene.user_id("alice")], "the reaction", |one| {
            relates(one, "event", &event, "reacts_to")
        })
        .await;
    assert_eq!(added["action"], "reaction.added", "{added}");
    let undo = json!({"user": "alice", "room": board, "event": reaction["event"], "reason": "oops"});
    scene.client.call("redact", undo);
    let removed = trail
        .wait_for(&["--action", "reaction.removed"], "the removed reaction", |one| {
            relates(one, "event", &event, "reacts_to")
        })
        .await;
    assert_eq!(removed["context"]["reason"], "oops");
    scene.client.call("redact", on(json!({"user": "bob", "reason": "second thoughts"})));
    let redacted = trail
        .wait_for(&["--action", "message.redacted"], "the redaction", |one| {
            relates(one, "event", &event, "redacts")
        })
        .await;
    assert_eq!(redacted["context"]["reason"], "second thoughts");
    let before = redacted["changes"].to_string();
    assert!(before.contains("sell nothing"), "what was redacted is kept: {before}");
}

async fn membership_and_settings_are_records(scene: &mut Scene, square: &str) {
    println!("-- membership, topic, name, power");
    let trail = scene.trail("auditbot").await;
    let (alice, carol) = (scene.user_id("alice"), scene.user_id("carol"));
    scene.client.call("join", json!({"user": "carol", "room": square}));
    let of_carol = |one: &Value| relates(one, "user", &carol, "target");
    let joined = trail.wait_for(&["--action", "room.member.joined"], "carol's join", of_carol).await;
    assert_eq!(actor(&joined), carol);
    let kick = json!({"user": "alice", "room": square, "target": carol, "reason": "too loud"});
    scene.client.call("kick", kick);
    let kicked = trail.wait_for(&["--action", "room.member.kicked"], "carol's kick", of_carol).await;
    assert_eq!((actor(&kicked), &kicked["context"]["reason"]), (alice.as_str(), &json!("too loud")));
    let path = kicked["changes"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["path"].as_str().unwrap().ends_with("/membership"));
    let path = path.expect("the membership changed");
    assert_eq!((&path["before"], &path["after"]), (&json!("join"), &json!("leave")));
    for topic in ["first words", "last words"] {
        scene.client.call(
            "setState",
            json!({"user": "alice", "room": square, "type": "m.room.topic", "content": {"topic": topic}}),
        );
    }
    let changed = trail
        .wait_for(&["--action", "room.topic.changed"], "the topic", |one| one["text"] == "last words")
        .await;
    assert_eq!(
        change(&changed, "/m.room.topic/topic"),
        Some((json!("first words"), json!("last words"))),
        "{changed}"
    );
    scene.client.call(
        "setPowerLevel",
        json!({"user": "alice", "room": square, "target": scene.synapse.user_id("bob"), "level": 50}),
    );
    let bob = scene.user_id("bob");
    trail
        .wait_for(&["--action", "room.power_levels.changed", "--room", square], "bob's power", |one| {
            change(one, &format!("/m.room.power_levels/users/{bob}")).is_some_and(|(_, after)| after == 50)
        })
        .await;
}

async fn the_search_narrows_down(scene: &Scene, square: &str, board: &str) {
    println!("-- search by text, room, actor, action, time and limit; table; refusals");
    let trail = scene.trail("auditbot").await;
    let all = trail.search(&["zanzibar"]);
    assert_eq!(all.len(), 4, "{all:#?}");
    let seqs: Vec<i64> = all.iter().map(|record| record["seq"].as_i64().unwrap()).collect();
    assert!(seqs.is_sorted_by(|a, b| a > b), "newest first: {seqs:?}");
    assert_eq!(trail.search(&["zanzibar", "--room", square]).len(), 1);
    assert_eq!(trail.search(&["zanzibar", "--room", board]).len(), 2);
    assert_eq!(trail.search(&["zanzibar", "--actor", &scene.user_id("bob")]).len(), 1);
    assert_eq!(trail.search(&["zanzibar", "--limit", "2"]).len(), 2);
    assert_eq!(trail.search(&["zanzibar number1"]).len(), 1, "all words must occur");
    assert_eq!(trail.search(&["zanzibar", "--since", "1h"]).len(), 4);
    assert_eq!(trail.search(&["zanzibar", "--until", "2020-01-01T00:00:00Z"]).len(), 0);
    assert!(
        trail.search(&["--action", "message.", "--limit", "50"]).len() >= 4,
        "a prefix that ends in a dot"
    );
    let variables = [("DATABASE_URL", trail.reader_url.as_str())];
    let (code, table, _) = ems_bots(&["audit", "search", "zanzibar", "--schema", "auditbot"], &variables);
    assert!(code == 0 && table.contains("zanzibar says number1"), "{table}");
    let (code, nothing, _) = ems_bots(&["audit", "search", "nowhere", "--schema", "auditbot"], &variables);
    assert_eq!(code, 0, "an empty table is an answer: {nothing}");
    let (code, _, error) = ems_bots(&["audit", "search", "x", "--limit", "many"], &variables);
    assert_eq!(code, 2, "{error}");
    println!("-- the reader's role reads and does nothing else");
    for statement in
        ["DELETE FROM content", "UPDATE head SET size = 0", "INSERT INTO envelope DEFAULT VALUES"]
    {
        let text = format!("SET search_path TO auditbot; {statement}");
        let refused = crate::support::sql::psql(&trail.reader_url, &text).expect_err(statement);
        assert!(refused.contains("permission denied"), "{statement}: {refused}");
    }
}

/// Bots are functional members, so clients count two people and name the chat after the other one.
async fn the_direct_chat_stays_one(scene: &mut Scene, lunch: &str) {
    println!("-- the direct chat of two stays one");
    let (admin, audit) = (scene.user_id("adminbot"), scene.user_id("auditbot"));
    let want = || json!({"user": "alice", "room": lunch, "type": "io.element.functional_members", "timeoutMs": 30_000});
    scene.client.call("waitForState", want());
    crate::support::eventually("both bots as functional members", std::time::Duration::from_secs(30), || {
        let state = scene.client.call("state", want())["content"].clone();
        let members = state["service_members"].as_array().cloned().unwrap_or_default();
        let both = [&admin, &audit].into_iter().all(|bot| members.contains(&json!(bot)));
        async move { if both && members.len() == 2 { Ok(()) } else { Err(state.to_string()) } }
    })
    .await;
}

/// Messages are none of the Admin Bot's business: its trail holds administrative acts only.
async fn the_admin_bots_trail_holds_no_conversation(scene: &Scene) {
    println!("-- the Admin Bot's trail holds no conversation");
    let trail = scene.trail("adminbot").await;
    assert_eq!(trail.search(&["zanzibar"]).len(), 0);
    assert_eq!(trail.search(&["--action", "message."]).len(), 0);
}

fn the_numbers_are_dense(scene: &Scene) {
    let query = "SELECT (count(*) = max(seq) AND min(seq) = 1)::int FROM auditbot.envelope";
    assert_eq!(crate::support::sql::count(&scene.database.name, query), 1, "numbers are dense from 1");
}
