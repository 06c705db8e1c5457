//! How a worker ends: also before it has a session, with what is in the inbox recorded, and once in
//! every life of its custom resource.

use std::time::Duration;

use ems_bots::{
    domain::record::RecordDraft,
    store::pg::{Role, inbox::PgInbox},
};

use crate::{
    matrix_fake::Fault,
    postgres::TestDatabase,
    store_append,
    worker_scene::LOGIN,
    worker_stage::{Running, Stage, until},
};

async fn until_encryption_says(running: &Running, reason: &str) {
    until(reason, || {
        let encryption = running.board.get().encryption;
        (encryption.reason == reason).then_some(()).ok_or(encryption)
    })
    .await;
}

async fn until_closed(running: &Running) {
    until("the trail is closed", || running.board.get().closed.then_some(()).ok_or(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_suspended_goes_on_and_ends_before_it_has_a_session() {
    let stage = Stage::first().await;
    let down =
        Fault { on: LOGIN.to_owned(), times: u32::MAX, status: 502, body: "<html>", carried_out: false };
    stage.scene.fake.world().faults.push(down);
    let running = stage.start(None);
    until_encryption_says(&running, "HomeserverFailing").await;
    stage.instructions.send_modify(|told| told.suspend = true);
    until_encryption_says(&running, "Suspended").await;
    stage.instructions.send_modify(|told| told.suspend = false);
    until_encryption_says(&running, "HomeserverFailing").await;
    stage.instructions.send_modify(|told| told.deleting = true);
    until_closed(&running).await;
    running.stop().await.unwrap();
    assert_eq!(stage.trail().await.last().unwrap().action, "bot.deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_life_of_the_bot_ends_with_one_record() {
    let stage = Stage::set().await;
    stage.instructions.send_modify(|told| told.deleting = true);
    for life in ["one", "another"] {
        stage.instructions.send_modify(|told| told.uid = life.to_owned());
        // The second start is a restart in the middle of the deletion.
        for _ in 0..2 {
            let running = stage.start(None);
            until_closed(&running).await;
            running.stop().await.unwrap();
        }
    }
    let trail = stage.trail().await;
    assert_eq!(trail.iter().filter(|draft| draft.action == "bot.deleted").count(), 2, "{trail:?}");
}

fn inbox(stage: &Stage) -> PgInbox {
    PgInbox::new(&stage.database.endpoint(Role::Inbox), "console-1", TestDatabase::inbox_key())
}

fn position(trail: &[RecordDraft], text: &str) -> usize {
    let found = trail.iter().position(|draft| draft.text.as_deref() == Some(text));
    found.unwrap_or_else(|| panic!("no {text} in {trail:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_the_inbox_is_recorded_as_what_it_is() {
    let stage = Stage::set().await;
    let running = stage.start(None);
    inbox(&stage).put(1, &store_append::message("x", "an export")).await.unwrap();
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    while !stage.trail().await.iter().any(|draft| draft.source_id.starts_with("inbox:console-1:1:")) {
        assert!(tokio::time::Instant::now() < deadline, "{:?}", stage.trail().await);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    running.stop().await.unwrap();
    let trail = stage.trail().await;
    assert_eq!(trail[position(&trail, "an export")].action, "message.sent");
    assert!(!trail.iter().any(|draft| draft.action == "inbox.unauthenticated"), "{trail:?}");
}

/// Waits until the condition names these of what a console brings as on, and no other.
async fn says_of_console(running: &Running, on: &[&str]) {
    until(&format!("{on:?}"), || {
        let message = running.board.get().recording.message;
        let all = ["inbox", "admission reviews", "audit events"].iter().all(|source| {
            let why =
                if *source == "inbox" { "nothing has come from a console yet" } else { "none has come yet" };
            let expected = if on.contains(source) { "on".to_owned() } else { format!("off: {why}") };
            message.split("; ").any(|part| part == format!("{source}: {expected}"))
        });
        if all { Ok(()) } else { Err(message) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn by_which_ways_a_console_has_brought_anything_is_said_and_recorded_also_after_a_restart() {
    let stage = Stage::set().await;
    let running = stage.start(None);
    says_of_console(&running, &[]).await;
    let forger = PgInbox::new(&stage.database.endpoint(Role::Inbox), "console-1", "guessed".into());
    forger.put(1, &store_append::message("kubernetes:audit:1:secret.read", "forged")).await.unwrap();
    until_recorded(&stage, "inbox.unauthenticated").await;
    says_of_console(&running, &[]).await;
    let ways = [
        ("configuration:console:1", &["inbox"][..]),
        ("kubernetes:admission:1:0", &["inbox", "admission reviews"]),
        ("kubernetes:refused:1", &["inbox", "admission reviews", "audit events"]),
    ];
    for (counter, (source, on)) in (2..).zip(ways) {
        inbox(&stage).put(counter, &store_append::message(source, source)).await.unwrap();
        says_of_console(&running, on).await;
    }
    let switched = async |standing: &str| {
        let to = |draft: &RecordDraft| {
            let of_console = ["inbox", "admission_reviews", "audit_events"];
            draft.action == "capture.source_switched"
                && of_console.iter().any(|source| draft.changes[0].path == format!("/sources/{source}"))
                && draft.changes[0].after == Some(standing.into())
        };
        stage.trail().await.iter().filter(|draft| to(draft)).count()
    };
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    while switched("on").await < 3 {
        assert!(tokio::time::Instant::now() < deadline, "{:?}", stage.trail().await);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    running.stop().await.unwrap();
    forget_rooms(&stage).await;
    let again = stage.start(None);
    says_of_console(&again, &["inbox", "admission reviews", "audit events"]).await;
    // Switches are recorded together: with that of the rooms there would be others.
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    while rooms_switched(&stage).await < 2 {
        assert!(tokio::time::Instant::now() < deadline, "{:?}", stage.trail().await);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    again.stop().await.unwrap();
    assert_eq!(switched("on").await, 3, "a restart is no switch");
}

/// As if it had never been recorded that the bot takes down what happens in rooms.
async fn forget_rooms(stage: &Stage) {
    let sql =
        "UPDATE cursor SET value = convert_to((convert_from(value, 'UTF8')::jsonb - 'rooms')::text, 'UTF8')
               WHERE name = 'worker:sources' AND convert_from(value, 'UTF8')::jsonb ? 'rooms'";
    let mut superuser = stage.database.superuser().await;
    assert_eq!(sqlx::query(sql).execute(&mut superuser).await.unwrap().rows_affected(), 1);
}

async fn rooms_switched(stage: &Stage) -> usize {
    let to_on = |draft: &&RecordDraft| {
        draft.action == "capture.source_switched"
            && draft.changes[0].path == "/sources/rooms"
            && draft.changes[0].after == Some("on".into())
    };
    stage.trail().await.iter().filter(to_on).count()
}

async fn until_recorded(stage: &Stage, action: &str) {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    while !stage.trail().await.iter().any(|draft| draft.action == action) {
        assert!(tokio::time::Instant::now() < deadline, "no {action}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_inbox_is_emptied_before_the_trail_is_closed() {
    let stage = Stage::set().await;
    let inbox = inbox(&stage);
    // More than is read at once.
    let large = "x".repeat(3_000_000);
    for n in 1..=3 {
        let mut message = store_append::message("x", &format!("export {n}"));
        message.source_raw = Some(large.clone());
        inbox.put(n, &message).await.unwrap();
    }
    stage.instructions.send_modify(|told| told.deleting = true);
    let running = stage.start(None);
    until_closed(&running).await;
    running.stop().await.unwrap();
    let trail = stage.trail().await;
    assert_eq!(trail.last().unwrap().action, "bot.deleted");
    for n in 1..=3 {
        assert_eq!(trail[position(&trail, &format!("export {n}"))].action, "message.sent");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_on_its_way_when_the_deletion_begins_is_recorded_before_it() {
    let mut stage = Stage::set().await;
    stage.quiet = Duration::from_secs(4);
    stage.instructions.send_modify(|told| told.deleting = true);
    let running = stage.start(None);
    until("the trail is open", || running.board.get().trail.map(drop).ok_or(())).await;
    // Much longer than taking an empty inbox takes.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!running.board.get().closed, "the console is given time");
    inbox(&stage).put(1, &store_append::message("x", "the request to delete it")).await.unwrap();
    until_closed(&running).await;
    running.stop().await.unwrap();
    // A restart does not open it again for what comes later still.
    inbox(&stage).put(2, &store_append::message("y", "too late")).await.unwrap();
    let again = stage.start(None);
    until_closed(&again).await;
    again.stop().await.unwrap();
    let trail = stage.trail().await;
    assert_eq!(trail.last().unwrap().action, "bot.deleted");
    assert_eq!(position(&trail, "the request to delete it"), trail.len() - 2, "{trail:?}");
}

/// A deletion in the foreground takes the pod in the same moment in which the bot is to be deleted.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_ended_while_it_closes_the_trail_takes_what_waits() {
    let mut stage = Stage::set().await;
    stage.quiet = Duration::from_mins(10);
    stage.instructions.send_modify(|told| told.deleting = true);
    let running = stage.start(None);
    until("the trail is open", || running.board.get().trail.map(drop).ok_or(())).await;
    inbox(&stage).put(1, &store_append::message("x", "the request to delete it")).await.unwrap();
    running.stop().await.unwrap();
    let trail = stage.trail().await;
    assert_eq!(position(&trail, "the request to delete it"), trail.len() - 2, "{trail:?}");
    assert_eq!(trail.last().unwrap().action, "worker.stopped");
    // The next one closes it, and then nobody says anything more.
    stage.quiet = Duration::from_secs(1);
    let next = stage.start(None);
    until_closed(&next).await;
    next.stop().await.unwrap();
    assert_eq!(stage.trail().await.last().unwrap().action, "bot.deleted");
}
