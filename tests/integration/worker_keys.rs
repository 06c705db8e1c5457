//! Encrypted conversations through a whole worker: whom a message is from, and keys that come late.

use ems_bots::{domain::record::Trust, worker::recorder::Stop};
use serde_json::{Value, json};

use crate::{
    alice::Alice,
    matrix_fake::Fault,
    worker_stage::{Running, Stage, ciphertext, sync, until},
};

/// A worker that has synced once, so that its device can be written to.
async fn started() -> (Stage, Running, Alice) {
    let stage = Stage::set().await;
    stage.scene.fake.world().syncs.insert(String::new(), sync("s1", &[], None));
    let running = stage.start(None);
    stage.until_asked("s1", 1).await;
    let alice = Alice::new(&stage.scene.fake).await;
    (stage, running, alice)
}

fn with_key(mut answer: Value, key: &Value) -> Value {
    answer["to_device"] = json!({"events": [key]});
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn every_message_of_a_new_sender_is_trusted_as_its_device_deserves() {
    let (stage, running, alice) = started().await;
    let key = alice.key_for(&stage.scene.fake, "EMS-1").await;
    let mut said = Vec::new();
    for number in 1..=3 {
        said.push(alice.says(&format!("${number}"), &format!("text {number}")).await);
    }
    let answer = with_key(sync("s2", &said, None), &key);
    stage.scene.fake.world().syncs.insert("s1".into(), answer);
    stage.until_asked("s2", 1).await;
    running.stop().await.unwrap();
    let trail = stage.trail().await;
    let messages: Vec<_> = trail
        .iter()
        .filter(|draft| draft.action == "message.sent")
        .map(|draft| (draft.text.as_deref().unwrap(), draft.trust))
        .collect();
    let trusted = ["text 1", "text 2", "text 3"].map(|text| (text, Trust::VerifiedDevice));
    assert_eq!(messages, trusted);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_cannot_keep_a_key_ends_and_is_given_it_again() {
    let (stage, running, alice) = started().await;
    let key = alice.key_for(&stage.scene.fake, "EMS-1").await;
    let said = alice.says("$said", "text").await;
    let volume = rusqlite::Connection::open(stage.scene.key_file()).unwrap();
    volume.execute_batch("BEGIN IMMEDIATE").unwrap();
    stage.scene.fake.world().syncs.insert("s1".into(), with_key(sync("s2", &[said], None), &key));
    let end = running.ended().await;
    assert!(matches!(&end, Err(Stop::Broken(why)) if why.contains("volume")), "{end:?}");
    volume.execute_batch("ROLLBACK").unwrap();
    let running = stage.start(None);
    stage.until_asked("s2", 1).await;
    running.stop().await.unwrap();
    let trail = stage.trail().await;
    let said = trail.iter().find(|draft| draft.source_id == "matrix:event:$said");
    assert_eq!(said.and_then(|draft| draft.text.as_deref()), Some("text"), "{trail:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_cannot_be_read_is_counted() {
    let (stage, running, alice) = started().await;
    let mut key = alice.key_for(&stage.scene.fake, "EMS-1").await;
    let said = alice.says("$said", "text").await;
    for (_, part) in key["content"]["ciphertext"].as_object_mut().unwrap() {
        // The end is the authentication code.
        let body = part["body"].as_str().unwrap();
        part["body"] = format!("{}AAAAAAAAAA", &body[..body.len() - 10]).into();
    }
    assert!(running.counter("ems_bots_worker_unreadable_device_messages_total").abs() < 0.5);
    stage.scene.fake.world().syncs.insert("s1".into(), with_key(sync("s2", &[said], None), &key));
    stage.until_asked("s2", 1).await;
    assert!((running.counter("ems_bots_worker_unreadable_device_messages_total") - 1.0).abs() < 0.5);
    running.stop().await.unwrap();
    let trail = stage.trail().await;
    assert!(trail.iter().any(|draft| draft.action == "message.undecryptable"), "{trail:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_key_opens_its_event_behind_many_that_never_open() {
    let (stage, running, alice) = started().await;
    let key = alice.key_for(&stage.scene.fake, "EMS-1").await;
    let mut said: Vec<_> = (0..600).map(|number| ciphertext(&format!("$never{number}"))).collect();
    said.push(alice.says("$late", "text that comes late").await);
    stage.scene.fake.world().syncs.insert("s1".into(), sync("s2", &said, None));
    stage.until_asked("s2", 1).await;
    stage.scene.fake.world().syncs.insert("s2".into(), with_key(sync("s3", &[], None), &key));
    stage.until_asked("s3", 1).await;
    let mut late = None;
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    while late.is_none() && tokio::time::Instant::now() < deadline {
        let trail = stage.trail().await;
        late = trail.into_iter().find(|draft| draft.source_id == "matrix:plaintext:$late");
    }
    assert_eq!(late.expect("its plaintext is a record").text.as_deref(), Some("text that comes late"));
    until("it goes on", || running.health.is_ready().then_some(()).ok_or(())).await;
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ciphertext_is_asked_for_again_and_the_record_says_where_there_is_none() {
    let (stage, running, alice) = started().await;
    let key = alice.key_for(&stage.scene.fake, "EMS-1").await;
    let said = [alice.says("$had", "text had").await, alice.says("$gone", "text gone").await];
    {
        let mut world = stage.scene.fake.world();
        // Asked a second time it does not tell them again, and one of them it has not any more.
        world.tells_once = true;
        world.events.insert("$had".into(), said[0].clone());
        let broken = [(502, "<html>"), (200, "{}")];
        world.faults.extend(broken.map(|(status, body)| Fault {
            on: "/event/$had".to_owned(),
            times: 1,
            status,
            body,
            carried_out: false,
        }));
        world.syncs.insert("s1".into(), with_key(sync("s2", &said, None), &key));
    }
    stage.until_asked("s2", 1).await;
    running.stop().await.unwrap();
    let trail = stage.trail().await;
    let record = |text: &str| trail.iter().find(|draft| draft.text.as_deref() == Some(text)).expect(text);
    let (had, gone) = (record("text had"), record("text gone"));
    let source: Value = serde_json::from_str(had.source_raw.as_deref().unwrap()).unwrap();
    assert_eq!((&source["type"], &had.context.reason), (&json!("m.room.encrypted"), &None));
    assert_eq!(source["content"], said[0]["content"]);
    assert_eq!(gone.source_raw, gone.plaintext_raw);
    let reason = gone.context.reason.as_deref().unwrap();
    assert!(reason.contains("does not give the ciphertext"), "{reason}");
}
