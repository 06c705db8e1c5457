//! Coverage as a part of the worker: what a pause holds up and what not, and what its trail says of each step. Real Synapse
//! and Postgres; no cluster is needed.

use std::time::Duration;

use ems_bots::domain::record::{RecordDraft, Relation};
use serde_json::json;

use super::support::{
    Database, LocalWorker, Synapse, eventually,
    rooms::{act, create_room, in_place},
    services::{Person, urlencode},
    unique,
};

/// So soon a pause takes effect (`docs/operations.md`).
const PAUSE: Duration = Duration::from_secs(5);

async fn say(synapse: &Synapse, person: &Person, room: &str, text: &str) {
    let path = format!("/_matrix/client/v3/rooms/{}/send/m.room.message/{}", urlencode(room), unique("text"));
    let body = json!({"msgtype": "m.text", "body": text});
    let (status, answer) = synapse.request("PUT", &path, &person.access_token, Some(body)).await;
    assert_eq!(status, 200, "{answer}");
}

async fn worker(synapse: &Synapse, name: &str) -> (LocalWorker, Database) {
    let database = Database::tenant(&unique(name).replace('-', "_"));
    let mut worker = LocalWorker::prepare("auditbot", synapse, &database).await;
    worker.start(synapse);
    worker.wait_ready().await;
    (worker, database)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_stops_invitations_and_repairs_within_seconds_and_not_what_is_recorded() {
    let synapse = Synapse::up(&unique("covpause"));
    let alice = synapse.register("alice");
    let kept = create_room(&synapse, &alice, json!({"preset": "private_chat"})).await;
    let lost = create_room(&synapse, &alice, json!({"preset": "private_chat", "room_version": "12"})).await;
    let (mut worker, _database) = worker(&synapse, "covpause").await;
    in_place(&synapse, &worker, &kept).await;
    in_place(&synapse, &worker, &lost).await;
    let paused = json!({"annotations": {"ems.element.io/coverage-paused": "true"}, "generation": 2});
    worker.instruct(&synapse, &json!({}), &paused);
    tokio::time::sleep(PAUSE).await;
    let acts = worker.of_action("bot.act.").await.len();
    let new = create_room(&synapse, &alice, json!({"preset": "public_chat"})).await;
    let (status, answer) = act(&synapse, &alice, &lost, "kick", json!({"user_id": worker.user_id})).await;
    assert_eq!(status, 200, "{answer}");
    say(&synapse, &alice, &kept, "said during the pause").await;
    worker.wait_text("said during the pause").await;
    tokio::time::sleep(2 * PAUSE).await;
    assert_eq!(synapse.standing(&new, &worker.user_id).await.0, "none");
    assert_eq!(synapse.standing(&lost, &worker.user_id).await.0, "leave");
    assert_eq!(worker.of_action("bot.act.").await.len(), acts, "nothing was begun");
    worker.instruct(&synapse, &json!({}), &json!({"annotations": {}, "generation": 3}));
    in_place(&synapse, &worker, &new).await;
    in_place(&synapse, &worker, &lost).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_made_and_said_while_no_worker_ran_is_covered_and_recorded() {
    let synapse = Synapse::up(&unique("covdown"));
    let alice = synapse.register("alice");
    let (mut worker, _database) = worker(&synapse, "covdown").await;
    let known = create_room(&synapse, &alice, json!({"preset": "private_chat"})).await;
    in_place(&synapse, &worker, &known).await;
    assert_eq!(worker.stop().await, 0);
    let mut rooms = Vec::new();
    for (version, preset) in [("10", "private_chat"), ("11", "public_chat"), ("12", "private_chat")] {
        let room = create_room(&synapse, &alice, json!({"preset": preset, "room_version": version})).await;
        say(&synapse, &alice, &room, &format!("nobody listens in {version}")).await;
        rooms.push((room, version));
    }
    let (status, answer) = act(&synapse, &alice, &known, "kick", json!({"user_id": worker.user_id})).await;
    assert_eq!(status, 200, "{answer}");
    say(&synapse, &alice, &known, "nor here").await;
    worker.start(&synapse);
    for (room, version) in &rooms {
        in_place(&synapse, &worker, room).await;
        worker.wait_text(&format!("nobody listens in {version}")).await;
    }
    in_place(&synapse, &worker, &known).await;
    worker.wait_text("nor here").await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_step_into_a_room_stands_in_the_trail_with_its_reason_and_in_whose_name() {
    let synapse = Synapse::up(&unique("covchain"));
    let (alice, bob) = (synapse.register("alice"), synapse.register("bob"));
    let room =
        create_room(&synapse, &alice, json!({"preset": "private_chat", "invite": [bob.user_id]})).await;
    assert_eq!(act(&synapse, &bob, &room, "join", json!({})).await.0, 200);
    assert_eq!(act(&synapse, &alice, &room, "leave", json!({})).await.0, 200);
    let (mut worker, _database) = worker(&synapse, "covchain").await;
    in_place(&synapse, &worker, &room).await;
    let here = Relation::new("room", &room, "in");
    let step = |record: &RecordDraft| {
        let kind = record.text.clone().unwrap_or_default();
        (kind, record.on_behalf_of.clone(), record.context.reason.clone().unwrap_or_default())
    };
    let expected: Vec<(String, Option<String>, String)> = [
        ("recall", Some(&bob), "no_local_admin"),
        ("return", Some(&alice), "no_local_admin"),
        ("make_admin", Some(&alice), "coverage"),
        ("release", Some(&alice), "no_local_admin"),
        ("join", None, "coverage"),
    ]
    .map(|(kind, whose, reason)| {
        (kind.to_owned(), whose.map(|person: &Person| person.user_id.clone()), reason.to_owned())
    })
    .to_vec();
    for action in ["bot.act.intended", "bot.act.done"] {
        eventually(action, Duration::from_secs(30), || async {
            let mut found = worker.of_action(action).await;
            found.retain(|record| record.relations.contains(&here));
            found.reverse();
            let steps: Vec<_> = found.iter().map(step).collect();
            if steps == expected { Ok(()) } else { Err(format!("{steps:?}")) }
        })
        .await;
    }
    // What the room's timeline shows as theirs is told as what it is.
    let theirs = |kind: &str, target: &str, whose: &Person| {
        let (kind, target, whose) = (kind.to_owned(), target.to_owned(), whose.user_id.clone());
        (kind, move |record: &RecordDraft| {
            record.on_behalf_of.as_deref() == Some(&whose)
                && record.relations.contains(&Relation::new("user", &target, "target"))
        })
    };
    for (action, fits) in [
        theirs("room.member.invited", &alice.user_id, &bob),
        theirs("room.member.invited", &worker.user_id.clone(), &alice),
    ] {
        worker.wait_for(&action, fits).await;
    }
    worker.stop().await;
}
