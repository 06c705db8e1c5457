//! Attachments on the homeserver in memory: fetched, opened, kept once and recorded; what cannot be had
//! is tried again or given up with a reason, and capture waits for none of it.

use ems_bots::domain::{
    BotKind,
    record::Relation,
    worker::{MediaMode, MediaPolicy},
};
use serde_json::{Value, json};

use crate::{
    faulty_store::{ATTENDED, Fault, INDIGESTIBLE},
    matrix_fake::{HANGS, Media},
    media_stage::{
        CONTENT, change, encrypted, kept, outcomes, plain, queue, refuse, sha256, stage, tell, tries,
        until_recorded, until_says, upload, waiting,
    },
    worker_stage::{message, text, until},
};

#[tokio::test(flavor = "multi_thread")]
async fn the_same_bytes_are_kept_once_however_they_were_sent() {
    let stage = stage(Some(CONTENT)).await;
    let bytes = b"the plan";
    let (cipher, secret) = encrypted("$secret", "cipher", bytes);
    upload(&stage, "cipher", &cipher);
    upload(&stage, "plain", bytes);
    tell(&stage, "", "s1", &[plain("$plain", "plain"), secret, message("$text", text("no file"))]);
    let running = stage.start(None);
    let found = until_recorded(&stage, 2).await;
    let hash = sha256(bytes);
    assert_eq!(
        found,
        [json!(["$plain", "attachment.kept", null, hash]), json!(["$secret", "attachment.kept", null, hash])]
    );
    until_says(&running, "attachments: on").await;
    running.stop().await.unwrap();
    assert_eq!(kept(&stage).await, [(8, Some(bytes.to_vec()))]);
    assert_eq!(waiting(&stage).await, 0);
    let trail = stage.trail().await;
    let record =
        trail.iter().find(|draft| draft.source_id.ends_with("$plain") && draft.action == "attachment.kept");
    let record = record.unwrap();
    let content = Relation::new("media", format!("sha256:{hash}"), "content");
    assert!(record.relations.contains(&content), "{:?}", record.relations);
    assert_eq!(
        ["name", "type", "claimedSize", "size"].map(|path| change(record, path)),
        [Some(json!("plan.txt")), Some(json!("text/plain")), Some(json!(1)), Some(json!(8)),]
    );
    assert_eq!(record.text.as_deref(), Some("plan.txt"), "it is found by its name");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_metadata_alone_it_is_hashed_and_thrown_away() {
    let stage = stage(Some(MediaPolicy { mode: MediaMode::Metadata, ..CONTENT })).await;
    let (cipher, secret) = encrypted("$1", "cipher", b"the plan");
    upload(&stage, "cipher", &cipher);
    tell(&stage, "", "s1", &[secret, plain("$2", "gone")]);
    let running = stage.start(None);
    let found = until_recorded(&stage, 2).await;
    running.stop().await.unwrap();
    let described = json!(["$1", "attachment.described", null, sha256(b"the plan")]);
    assert_eq!(found, [described, json!(["$2", "attachment.described", "gone", null])]);
    assert_eq!(kept(&stage).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_never_be_had_is_recorded_with_the_reason() {
    let stage = stage(Some(CONTENT)).await;
    let (mut cipher, corrupt) = encrypted("$corrupt", "corrupt", b"the plan");
    cipher[0] ^= 1;
    upload(&stage, "corrupt", &cipher);
    upload(&stage, "large", &vec![0; 10_001]);
    upload(&stage, "limit", &vec![0; 10_000]);
    stage.scene.fake.world().media.insert("example.org/endless".to_owned(), Media::Endless);
    refuse(&stage, "/forbidden", 9, 403, r#"{"errcode":"M_FORBIDDEN","error":"x"}"#);
    let events = [
        corrupt,
        plain("$endless", "endless"),
        plain("$forbidden", "forbidden"),
        plain("$gone", "gone"),
        plain("$large", "large"),
        plain("$limit", "limit"),
        plain("$unreadable", "../../../_synapse/admin/v1/rooms"),
    ];
    tell(&stage, "", "s1", &events);
    let running = stage.start(None);
    let found = until_recorded(&stage, 7).await;
    running.stop().await.unwrap();
    let not_kept = |event: &str, why: &str| json!([event, "attachment.not_kept", why, null]);
    assert_eq!(
        found,
        [
            not_kept("$corrupt", "corrupt"),
            not_kept("$endless", "too_large"),
            not_kept("$forbidden", "refused"),
            not_kept("$gone", "gone"),
            not_kept("$large", "too_large"),
            json!(["$limit", "attachment.kept", null, sha256(&[0; 10_000])]),
            not_kept("$unreadable", "unreadable"),
        ]
    );
    assert_eq!(kept(&stage).await.len(), 1);
    assert_eq!(stage.scene.fake.count("_synapse"), 0, "no address leads elsewhere");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_media_server_that_is_down_is_asked_again_and_capture_does_not_wait() {
    const LIMITED: &str = r#"{"errcode":"M_LIMIT_EXCEEDED","error":"x","retry_after_ms":1500}"#;
    let stage = stage(Some(CONTENT)).await;
    upload(&stage, "1", b"one");
    upload(&stage, "2", b"two");
    upload(&stage, "3", b"three");
    refuse(&stage, "/example.org/1", 2, 502, "<html>");
    refuse(&stage, "/example.org/2", 1, HANGS, "");
    refuse(&stage, "/example.org/3", 1, 429, LIMITED);
    tell(&stage, "", "s1", &[plain("$1", "1"), plain("$2", "2"), plain("$3", "3")]);
    let running = stage.start(None);
    tell(&stage, "s1", "s2", &[message("$4", text("meanwhile"))]);
    stage.until_asked("s2", 1).await;
    assert!(stage.trail().await.iter().any(|draft| draft.text.as_deref() == Some("meanwhile")));
    // The one that hangs holds its place; the two others come one after the other.
    let found = until_recorded(&stage, 2).await;
    let one = json!(["$1", "attachment.kept", null, sha256(b"one")]);
    let three = json!(["$3", "attachment.kept", null, sha256(b"three")]);
    assert_eq!(found, [one.clone(), three.clone()]);
    assert_eq!(stage.scene.fake.count("/example.org/1"), 3);
    running.stop().await.unwrap();
    let again = stage.start(None);
    let found = until_recorded(&stage, 3).await;
    again.stop().await.unwrap();
    assert_eq!(found, [one, json!(["$2", "attachment.kept", null, sha256(b"two")]), three]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_killed_between_the_bytes_and_their_record_records_them_once() {
    for fault in [Fault::KilledBefore, Fault::KilledAfter] {
        let stage = stage(Some(CONTENT)).await;
        upload(&stage, "1", b"one");
        tell(&stage, "", "s1", &[plain("$1", "1")]);
        stage.start(Some((ATTENDED, fault))).killed().await;
        assert_eq!(kept(&stage).await.len(), 1, "{fault:?}: the bytes came first");
        assert_eq!(waiting(&stage).await, i64::from(fault == Fault::KilledBefore), "{fault:?}");
        let again = stage.start(None);
        until_recorded(&stage, 1).await;
        stage.until_asked("s1", 2).await;
        again.stop().await.unwrap();
        let kept_one = json!(["$1", "attachment.kept", null, sha256(b"one")]);
        assert_eq!(outcomes(&stage).await, [kept_one], "{fault:?}");
        assert_eq!((kept(&stage).await.len(), waiting(&stage).await), (1, 0), "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn age_alone_gives_nothing_up_and_an_outage_never() {
    let stage = stage(Some(CONTENT)).await;
    for (id, count) in [("young", 0), ("out", 200), ("worn", 200)] {
        upload(&stage, id, id.as_bytes());
        queue(&stage, &format!("${id}"), id, 31, count).await;
    }
    // The bot stood still for a month: its first try is the first, whatever comes of it.
    refuse(&stage, "/example.org/young", 1, 502, "<html>");
    refuse(&stage, "/example.org/out", 1, 429, r#"{"errcode":"M_LIMIT_EXCEEDED","error":"x"}"#);
    refuse(&stage, "/example.org/worn", 1, 502, "<html>");
    let running = stage.start(None);
    let found = until_recorded(&stage, 3).await;
    running.stop().await.unwrap();
    assert_eq!(
        found,
        [
            json!(["$out", "attachment.kept", null, sha256(b"out")]),
            json!(["$worn", "attachment.not_kept", "unreachable", null]),
            json!(["$young", "attachment.kept", null, sha256(b"young")]),
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_hangs_holds_up_nothing_that_was_just_sent() {
    let stage = stage(Some(CONTENT)).await;
    for number in 0..30 {
        queue(&stage, &format!("$h{number}"), &format!("h{number}"), 1, 3).await;
    }
    refuse(&stage, "/example.org/h", u32::MAX, HANGS, "");
    upload(&stage, "good", b"good");
    tell(&stage, "", "s1", &[plain("$good", "good")]);
    let running = stage.start(None);
    let found = until_recorded(&stage, 1).await;
    assert_eq!(found, [json!(["$good", "attachment.kept", null, sha256(b"good")])]);
    until_says(&running, "attachments: lagging: 10 or more wait").await;
    running.stop().await.unwrap();
    assert_eq!(waiting(&stage).await, 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_queue_is_seldom_counted() {
    let stage = stage(Some(CONTENT)).await;
    queue(&stage, "$1", "1", 1, 3).await;
    let many = "INSERT INTO attachment (seq, wanted, tries, next_try, queued_at)
        SELECT seq, wanted, tries, next_try, queued_at FROM attachment, generate_series(1, 2000)";
    sqlx::query(many).execute(&mut stage.database.superuser().await).await.unwrap();
    refuse(&stage, "/example.org/1", u32::MAX, 502, "<html>");
    let running = stage.start(None);
    let start = tokio::time::Instant::now();
    until("it is busy for a while", || {
        let asked = stage.scene.fake.count("/example.org/1");
        let is_while = start.elapsed() > std::time::Duration::from_secs(4);
        (asked > 10 && is_while).then_some(()).ok_or(asked)
    })
    .await;
    assert_eq!(*running.seen.counted.lock().unwrap(), 1);
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_content_that_the_database_does_not_take_lets_the_others_through() {
    let stage = stage(Some(CONTENT)).await;
    upload(&stage, "bad", &[1; 666]);
    upload(&stage, "good", b"good");
    tell(&stage, "", "s1", &[plain("$bad", "bad"), plain("$good", "good")]);
    let running = stage.start(Some((INDIGESTIBLE.0, Fault::Unreachable(1))));
    let found = until_recorded(&stage, 1).await;
    assert_eq!(found, [json!(["$good", "attachment.kept", null, sha256(b"good")])]);
    until("it is tried again", || {
        let asked = stage.scene.fake.count("/example.org/bad");
        (asked > 2).then_some(()).ok_or(asked)
    })
    .await;
    running.stop().await.unwrap();
    assert!(tries(&stage).await[0] > 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_media_that_nobody_has_leaves_the_source_on() {
    let stage = stage(Some(CONTENT)).await;
    queue(&stage, "$dead", "dead", 1, 9).await;
    refuse(&stage, "/example.org/dead", u32::MAX, 502, "<html>");
    let running = stage.start(None);
    let failed = async {
        while tries(&stage).await != [10] {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), failed).await.expect("it is not tried");
    until_says(&running, "attachments: on").await;
    running.stop().await.unwrap();
    assert_eq!(waiting(&stage).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_does_not_wait_for_a_slow_download_beside_it() {
    let stage = stage(Some(CONTENT)).await;
    upload(&stage, "again", b"again");
    refuse(&stage, "/example.org/slow", u32::MAX, HANGS, "");
    refuse(&stage, "/example.org/again", 2, 502, "<html>");
    tell(&stage, "", "s1", &[plain("$slow", "slow"), plain("$again", "again")]);
    let running = stage.start(None);
    let start = tokio::time::Instant::now();
    let found = until_recorded(&stage, 1).await;
    assert!(start.elapsed() < std::time::Duration::from_secs(10), "{:?}", start.elapsed());
    assert_eq!(found, [json!(["$again", "attachment.kept", null, sha256(b"again")])]);
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_meant_for_a_bucket_waits_for_it() {
    let place = Some("https://s3.example.org/attachments".to_owned());
    let stage = stage(Some(MediaPolicy { place, ..CONTENT })).await;
    upload(&stage, "1", b"one");
    tell(&stage, "", "s1", &[plain("$1", "1")]);
    let running = stage.start(None);
    until_says(&running, "the worker waits for the bucket of the custom resource").await;
    assert_eq!(kept(&stage).await, []);
    assert_eq!(stage.scene.fake.count("/media/download/"), 0, "nothing is fetched for nothing");
    // It is not wanted any more.
    stage.instructions.send_modify(|told| told.media = Some(CONTENT));
    until_recorded(&stage, 1).await;
    running.stop().await.unwrap();
    assert_eq!(kept(&stage).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_homeserver_without_authenticated_media_is_asked_in_the_old_way() {
    let stage = stage(Some(CONTENT)).await;
    upload(&stage, "1", b"one");
    refuse(&stage, "/client/v1/media/", 9, 404, r#"{"errcode":"M_UNRECOGNIZED","error":"x"}"#);
    tell(&stage, "", "s1", &[plain("$1", "1")]);
    let running = stage.start(None);
    let found = until_recorded(&stage, 1).await;
    running.stop().await.unwrap();
    assert_eq!(found, [json!(["$1", "attachment.kept", null, sha256(b"one")])]);
    assert_eq!(stage.scene.fake.count("/_matrix/media/v3/download/example.org/1"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_names_stop_nothing() {
    let stage = stage(Some(CONTENT)).await;
    upload(&stage, "1", b"one");
    let long = "ä".repeat(20_000);
    let names = ["\0", "../../etc/passwd", "\u{202e}gnp.exe", "'; DROP TABLE media; --", &long];
    let mut events: Vec<Value> = names
        .iter()
        .enumerate()
        .map(|(number, name)| {
            message(
                &format!("${number}"),
                json!({"msgtype": "m.file", "body": name, "filename": name,
                "url": "mxc://example.org/1", "info": {"mimetype": name, "size": -1}}),
            )
        })
        .collect();
    let mut odd = plain("$odd", "1");
    odd["content"]["info"] =
        json!({"size": 1e300, "mimetype": {"a": []}, "thumbnail_url": "mxc://\0/\u{ffff}"});
    events.push(odd);
    tell(&stage, "", "s1", &events);
    let running = stage.start(None);
    let found = until_recorded(&stage, 7).await;
    running.stop().await.unwrap();
    let is_kept = |outcome: &&Value| outcome[1] == "attachment.kept" && outcome[3] == sha256(b"one");
    assert_eq!(found.iter().filter(is_kept).count(), 6, "{found:?}");
    assert!(found.contains(&json!(["$odd", "attachment.not_kept", "unreadable", null])), "{found:?}");
    assert_eq!(kept(&stage).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_fetched_that_nobody_asks_for_any_more() {
    let stage = stage(Some(CONTENT)).await;
    refuse(&stage, "/media/download/", u32::MAX, 502, "<html>");
    tell(&stage, "", "s1", &[plain("$1", "1")]);
    let running = stage.start(None);
    until("it is asked for", || {
        let asked = stage.scene.fake.count("/media/download/");
        (asked > 0).then_some(()).ok_or(asked)
    })
    .await;
    stage.instructions.send_modify(|told| told.media = None);
    let found = until_recorded(&stage, 1).await;
    assert_eq!(found, [json!(["$1", "attachment.not_kept", "policy", null])]);
    tell(&stage, "s1", "s2", &[plain("$2", "2")]);
    stage.until_asked("s2", 1).await;
    running.stop().await.unwrap();
    assert_eq!(waiting(&stage).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_bot_fetches_no_attachment() {
    let mut stage = stage(Some(CONTENT)).await;
    stage.kind = BotKind::Admin;
    let mut ours = plain("$1", "1");
    ours["sender"] = crate::matrix_fake::USER.into();
    upload(&stage, "1", b"one");
    tell(&stage, "", "s1", &[ours]);
    let running = stage.start(None);
    stage.until_asked("s1", 1).await;
    running.stop().await.unwrap();
    assert_eq!(waiting(&stage).await, 0);
    assert_eq!(stage.scene.fake.count("/media/"), 0);
}
