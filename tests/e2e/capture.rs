//! The worker alone, without a cluster, against a real Synapse and a real Postgres: every event once,
//! whatever is killed.

use std::{collections::BTreeMap, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use ems_bots::domain::record::{Actor, Relation, Trust};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::support::{Client, Database, LocalWorker, Synapse, eventually, unique};

/// A homeserver, a trail and a worker that runs, with people who talk.
struct Stage {
    synapse: Synapse,
    client: Client,
    worker: LocalWorker,
    _database: Database,
}

impl Stage {
    async fn set(name: &str) -> Self {
        let synapse = Synapse::up(&unique(name));
        let database = Database::tenant(&unique(name).replace('-', "_"));
        let mut worker = LocalWorker::prepare("auditbot", &synapse, &database).await;
        worker.start(&synapse);
        worker.wait_ready().await;
        let mut client = Client::start();
        for person in ["alice", "bob"] {
            client.login(&synapse, &synapse.register(person));
        }
        Self { synapse, client, worker, _database: database }
    }

    /// A room with alice and bob; the bot comes in by the coverage that runs in the worker.
    fn room(&mut self, options: serde_json::Value) -> String {
        let room = self.client.create_room("alice", options);
        self.client
            .call("invite", json!({"user": "alice", "room": room, "target": self.synapse.user_id("bob")}));
        self.client.call("join", json!({"user": "bob", "room": room}));
        self.client.wait_for_member("alice", &room, &self.worker.user_id.clone(), "join");
        room
    }

    fn end(mut self) {
        drop(self.client);
        self.worker.kill();
    }
}

fn with(record: &ems_bots::domain::record::RecordDraft, id: &str, role: &str) -> bool {
    record.relations.contains(&Relation::new("event", id, role))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_encrypted_conversation_is_in_the_trail_once_whatever_is_killed() {
    let mut stage = Stage::set("capture").await;
    let room = stage.room(json!({"encrypted": true, "name": "Board"}));
    let event = stage.client.send("alice", &room, "sell everything");
    let record = stage.worker.wait_text("sell everything").await;
    assert_eq!(record.trust, Trust::VerifiedDevice);
    assert!(with(&record, &event, "self"));
    let (source, plain) = (record.source_raw.unwrap(), record.plaintext_raw.unwrap());
    assert!(source.contains("m.megolm.v1.aes-sha2") && !source.contains("sell everything"), "{source}");
    assert!(plain.contains("sell everything"));
    assert!(record.context.device_id.is_some());

    println!("-- edit, reaction, redaction");
    stage.client.call("edit", json!({"user": "alice", "room": room, "event": event, "body": "sell nothing"}));
    let edit = stage.worker.wait_for("message.edited", |record| with(record, &event, "replaces")).await;
    assert_eq!(edit.changes[0].before, Some(json!("sell everything")));
    assert_eq!(edit.changes[0].after, Some(json!("sell nothing")));
    stage.client.call("react", json!({"user": "bob", "room": room, "event": event, "key": "👍"}));
    stage.worker.wait_for("reaction.added", |record| with(record, &event, "reacts_to")).await;
    stage.client.call("redact", json!({"user": "alice", "room": room, "event": event, "reason": "oops"}));
    let gone = stage.worker.wait_for("message.redacted", |record| with(record, &event, "redacts")).await;
    assert_eq!(gone.context.reason.as_deref(), Some("oops"));
    let body = gone.changes.iter().find(|change| change.path == "/content/body").unwrap();
    assert_eq!(body.before, Some(json!("sell nothing")), "what could be read last is what was taken away");

    println!("-- kill -9 in the middle of messages");
    let mut texts = Vec::new();
    for number in 0..40 {
        let text = format!("message number {number}");
        stage.client.send(if number % 2 == 0 { "alice" } else { "bob" }, &room, &text);
        texts.push(text);
        if number % 13 == 5 {
            stage.worker.kill();
        }
        if number % 13 == 8 {
            stage.worker.start(&stage.synapse);
        }
    }
    stage.worker.wait_ready().await;
    for text in &texts {
        stage.worker.wait_text(text).await;
    }
    once_each(&stage.worker, &texts).await;
    assert_eq!(stage.worker.count("SELECT count(*) FROM auditbot.pending"), 0);
    assert_eq!(stage.worker.count("SELECT (count(*) = max(seq))::int FROM auditbot.envelope"), 1);

    println!("-- a gap longer than one sync");
    stage.worker.kill();
    let mut texts = Vec::new();
    for number in 0..130 {
        let text = format!("while away {number}");
        stage.client.send("alice", &room, &text);
        texts.push(text);
    }
    stage.worker.start(&stage.synapse);
    for text in &texts {
        stage.worker.wait_text(text).await;
    }
    once_each(&stage.worker, &texts).await;

    println!("-- stop and start are records");
    assert_eq!(stage.worker.stop().await, 0);
    assert_eq!(stage.worker.of_action("worker.stopped").await.len(), 1);
    // The first, the last of those that were killed, and this one: who was killed at once said nothing.
    assert!(stage.worker.of_action("worker.started").await.len() >= 3);
    let log = stage.worker.log();
    for secret in [&stage.worker.password, &stage.worker.phrase, "sell everything"] {
        assert!(!log.contains(secret), "the log holds no secret and no message");
    }
    stage.worker.start(&stage.synapse);
    stage.worker.wait_ready().await;
    stage.end();
}

async fn once_each(worker: &LocalWorker, texts: &[String]) {
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for record in worker.of_action("message.").await {
        *counts.entry(record.text.unwrap_or_default()).or_default() += 1;
    }
    for text in texts {
        assert_eq!(counts.get(text), Some(&1), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_coverage_makes_people_do_has_the_bot_as_actor() {
    let mut stage = Stage::set("acts").await;
    let room = stage.room(json!({"name": "Square"}));
    let bot = stage.worker.user_id.clone();
    let invited = stage
        .worker
        .wait_for("room.member.invited", |record| {
            record.relations.contains(&Relation::new("user", &bot, "target"))
                && record.relations.contains(&Relation::new("room", &room, "in"))
        })
        .await;
    assert_eq!(invited.actor, Actor::matrix(&bot));
    assert_eq!(invited.on_behalf_of, Some(stage.synapse.user_id("alice")));
    stage.end();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_volume_is_recovered_and_a_broken_identity_is_said() {
    let mut stage = Stage::set("identity").await;
    let room = stage.room(json!({"encrypted": true}));
    stage.client.send("alice", &room, "before the loss");
    stage.worker.wait_text("before the loss").await;
    stage.worker.wait_report("encryption", &["Some(true)"]).await;

    println!("-- the volume is lost while messages come in");
    // The backup is uploaded in the background: only what it holds survives the volume.
    tokio::time::timeout(Duration::from_secs(30), wait_for_backup(&stage)).await.unwrap();
    stage.worker.kill();
    std::fs::remove_dir_all(stage.worker.data()).unwrap();
    stage.client.send("bob", &room, "while it is lost");
    stage.worker.start(&stage.synapse);
    stage.worker.wait_ready().await;
    stage.worker.wait_report("encryption", &["Some(true)"]).await;
    let devices = devices(&stage).await;
    assert_eq!(devices, ["EMSTEST-2"], "the old device is removed");
    stage.client.send("alice", &room, "after the loss");
    stage.worker.wait_text("after the loss").await;

    println!("-- somebody resets the identity");
    let person = json!({"user": stage.worker.user_id, "session": "person", "password": stage.worker.password,
        "homeserver": stage.synapse.host_public_url, "phrase": stage.worker.phrase});
    stage.client.call("recoverWithPhrase", person);
    stage.client.call(
        "resetIdentity",
        json!({"user": "person", "password": stage.worker.password, "phrase": "another"}),
    );
    let said = stage.worker.wait_report("encryption", &["Some(false)", "repair-encryption"]).await;
    println!("   {said}");
    assert!(said.contains("IdentityReplaced"), "{said}");

    println!("-- a person decides to have it made anew");
    stage.client.call("logout", json!({"user": "person"}));
    let repair = json!({"annotations": {"ems.element.io/repair-encryption": "today"}});
    stage.worker.instruct(&stage.synapse, &json!({}), &repair);
    stage.worker.wait_report("encryption", &["Some(true)"]).await;
    stage.worker.wait_for("bot.identity.repaired", |_| true).await;
    stage.client.call("approveIdentity", json!({"user": "alice", "target": stage.worker.user_id}));
    stage.client.send("alice", &room, "after the repair");
    stage.worker.wait_text("after the repair").await;

    println!("-- somebody removes the device; a restart makes a new one");
    let path = format!("/_synapse/admin/v2/users/{}/devices/EMSTEST-2", stage.worker.user_id);
    stage.synapse.admin("DELETE", &path, None).await;
    stage.worker.wait_report("encryption", &["DeviceRemoved"]).await;
    stage.worker.kill();
    stage.worker.start(&stage.synapse);
    stage.worker.wait_ready().await;
    stage.worker.wait_report("encryption", &["Some(true)"]).await;
    stage.client.send("alice", &room, "to the third device");
    stage.worker.wait_text("to the third device").await;
    stage.end();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attachments_are_kept_as_they_were_before_they_were_encrypted() {
    let mut stage = Stage::set("attachments").await;
    let media = json!({"media": {"mode": "Content", "maximumSize": "64Ki"}});
    stage.worker.instruct(&stage.synapse, &media, &json!({"generation": 2}));
    stage.worker.wait_for("bot.configuration.changed", |_| true).await;
    let secret = stage.room(json!({"encrypted": true}));
    let open = stage.room(json!({"name": "Square"}));
    let picture: Vec<u8> = (0..50_000_u32).map(|number| number.to_le_bytes()[1]).collect();
    let hash = hex::encode(Sha256::digest(&picture));

    println!("-- the same picture, encrypted and not, and one that is too large");
    let mut send = |room: &str, name: &str, data: &[u8]| {
        let file = json!({"user": "alice", "room": room, "name": name, "mimetype": "image/png",
            "data": BASE64_STANDARD.encode(data)});
        stage.client.call("sendFile", file)["event"].as_str().unwrap().to_owned()
    };
    let events = [send(&secret, "secret.png", &picture), send(&open, "open.png", &picture)];
    let large = send(&secret, "large.png", &vec![7; 70_000]);
    for event in &events {
        let kept =
            stage.worker.wait_for("attachment.kept", |record| with(record, event, "attached_to")).await;
        let said = kept.changes.iter().find(|change| change.path == "/attachment/sha256").unwrap();
        assert_eq!(said.after, Some(json!(hash)));
    }
    let missed =
        stage.worker.wait_for("attachment.not_kept", |record| with(record, &large, "attached_to")).await;
    assert_eq!(missed.context.reason.as_deref(), Some("too_large"));
    assert_eq!(stage.worker.count("SELECT count(*) FROM auditbot.media"), 1);
    let same = format!(
        "SELECT (encode(sha256, 'hex') = '{hash}' AND sha256 = sha256(content))::int FROM auditbot.media"
    );
    assert_eq!(stage.worker.count(&same), 1);

    println!("-- what was sent while the worker was killed");
    stage.worker.kill();
    let later = send(&secret, "later.png", b"another picture");
    stage.worker.start(&stage.synapse);
    stage.worker.wait_for("attachment.kept", |record| with(record, &later, "attached_to")).await;
    assert_eq!(stage.worker.count("SELECT count(*) FROM auditbot.attachment"), 0);
    stage.end();
}

async fn wait_for_backup(stage: &Stage) {
    eventually("the keys are backed up", Duration::from_secs(30), || async {
        let path = format!("/_synapse/admin/v1/users/{}/login", stage.worker.user_id);
        let (_, puppet) = stage.synapse.admin("POST", &path, Some(json!({}))).await;
        let token = puppet["access_token"].as_str().unwrap().to_owned();
        let (_, version) =
            stage.synapse.request("GET", "/_matrix/client/v3/room_keys/version", &token, None).await;
        if version["count"].as_i64() > Some(0) { Ok(()) } else { Err(version.to_string()) }
    })
    .await;
}

async fn devices(stage: &Stage) -> Vec<String> {
    let path = format!("/_synapse/admin/v2/users/{}/devices", stage.worker.user_id);
    let (_, answer) = stage.synapse.admin("GET", &path, None).await;
    let devices = answer["devices"].as_array().unwrap();
    devices.iter().map(|device| device["device_id"].as_str().unwrap().to_owned()).collect()
}
