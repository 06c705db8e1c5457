//! A crash at every await of the way from an answer of the homeserver to the commit of its cursor.
//!
//! The whole worker runs on a runtime of its own, and the runtime is dropped, with every task, timer and
//! connection, when the tasks that follow /sync and read the history have been polled for the N-th time since the
//! answer was asked for, for growing N until the commit comes first. Each run takes some of them, of which its seed decides, and
//! `EMS_TEST_EVERY_FAILPOINT=1` takes all, N = 1, 2, 3 and so on, for minutes. An await that waits ends a poll, so every one of them is a place to die: the lookup of an earlier
//! event, the repeated sync for the ciphertext, and each round trip of the transaction, `COMMIT` included.
//! Whatever ran between two of them had no effect outside the process that a death at the later one would
//! not leave behind as well. Then a new worker starts on the same volume and database, which finishes what
//! the dead one began and dies at the next place. In the end the trail is the same as that of a worker that
//! nobody disturbed.
//!
//! Not covered: what SQLite has begun to write is finished, since its threads are waited for, and the
//! SDK's own handling of an answer runs in another task: `session/keys/tests.rs` kills that, and
//! `faults_capture` of the end-to-end tests kills the real process.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sqlx::Executor as _;
use tokio_util::sync::CancellationToken;

use crate::{
    alice::Alice,
    failpoints::{count, in_own_runtime, places, under_test},
    faulty_store::Seen,
    worker_stage::{ROOM, Stage, message, page, sync, text, until},
};

/// So many lives in a row that nothing ended are the end.
const UNDISTURBED: usize = 3;

/// No life needs more polls than this.
const MOST: usize = 600;

/// One life of the worker: until so many polls since `from` was asked for, or until the cursor is `next` and
/// no history is left to read. The result is how many tasks were counted, unless it died early.
async fn live(stage: &Arc<Stage>, from: &str, next: &str, polls: usize) -> Option<usize> {
    let (stage, from, next) = (stage.clone(), from.to_owned(), next.to_owned());
    in_own_runtime(async move || {
        let (process, dead) = (stage.prepare(None), CancellationToken::new());
        let (asked, seen) = (stage.scene.fake.world().asked.len(), process.seen);
        let follows = {
            let (stage, seen) = (stage.clone(), seen.clone());
            move |task: Option<tokio::task::Id>| {
                task.is_some_and(|task| seen.capture.lock().unwrap().contains(&task))
                    && stage.scene.fake.world().asked[asked..].contains(&from)
            }
        };
        let _guard = count(follows, polls, &dead);
        let worker = process.worker.run(CancellationToken::new());
        tokio::select! {
            biased;
            () = dead.cancelled() => None,
            end = under_test(worker) => panic!("it ended: {end:?}"),
            () = until_committed(&seen, &next) => Some(seen.capture.lock().unwrap().len()),
        }
    })
    .await
}

async fn until_committed(seen: &Seen, next: &str) {
    until("it is committed", || {
        let cursors = seen.cursors.lock().unwrap();
        let synced = cursors.iter().any(|(name, value)| name == "matrix:sync" && value == next);
        let history = cursors.iter().rev().find(|(name, _)| name.starts_with("matrix:history:"));
        let read = history.is_none_or(|(_, spans)| spans == "[]");
        if synced && read { Ok(()) } else { Err(cursors.clone()) }
    })
    .await;
}

/// What happens in the `number`-th answer.
type Tell = fn(&Stage, u32, &Value, Option<Value>);

/// A bot with a room, which has synced up to `s0`, and Alice, whose keys it does not have.
async fn set() -> (Arc<Stage>, Alice, Value) {
    let stage = Stage::set().await;
    let first = [message("$before", text("before"))];
    stage.scene.fake.world().syncs.insert(String::new(), sync("s0", &first, None));
    let running = stage.start(None);
    stage.until_asked("s0", 1).await;
    running.stop().await.unwrap();
    let alice = Alice::new(&stage.scene.fake).await;
    let key = alice.key_for(&stage.scene.fake, "EMS-1").await;
    (Arc::new(stage), alice, key)
}

async fn tell(stage: &Stage, number: u32, alice: &Alice, key: &Value, tell: Tell) {
    let secret = alice.says(&format!("$secret{number}"), &format!("secret {number}")).await;
    tell(stage, number, &secret, (number == 0).then(|| key.clone()));
}

/// Lives and dies until a commit comes before the death; then compares with a life that nobody ended. The result is how
/// many tasks of that one could have been ended.
async fn die_everywhere(from: fn(u32) -> String, step: usize, what: Tell) -> usize {
    let (started, (first, step)) = (Instant::now(), places(step));
    let (stage, alice, key) = set().await;
    let (mut number, mut undisturbed, mut deaths) = (0_u32, 0, 0);
    while undisturbed < UNDISTURBED {
        tell(&stage, number, &alice, &key, what).await;
        let polls = usize::try_from(number).unwrap() * step + first;
        assert!(polls < MOST, "it never comes to its commit");
        let next = format!("s{}", number + 1);
        if live(&stage, &from(number), &next, polls).await.is_none() {
            (deaths, undisturbed) = (deaths + 1, 0);
        } else {
            undisturbed += 1;
        }
        number += 1;
    }
    println!("died {deaths} times in {number} lives, {:.1?}", started.elapsed());
    // How many polls there are is chance: answers that come together are one.
    assert!(deaths > 0, "it committed before the first place to die at");
    let (other, alice, key) = set().await;
    for number in 0..number {
        tell(&other, number, &alice, &key, what).await;
    }
    let tasks = live(&other, &from(0), &format!("s{number}"), usize::MAX).await;
    let (died, never) = (sorted(&stage).await, sorted(&other).await);
    let pairs = died.iter().zip(&never).find(|(died, never)| died != never);
    assert_eq!(pairs, None, "the first record that differs, of a trail with deaths and one without");
    assert_eq!(died.len(), never.len());
    for stage in [stage, other] {
        is_whole(&stage).await;
    }
    tasks.expect("nothing ends it")
}

/// News and history of one life are recorded beside each other, those of many one after the other.
async fn sorted(stage: &Stage) -> Vec<Value> {
    let mut records = stage.room_records().await;
    records.sort_by_key(ToString::to_string);
    records
}

async fn is_whole(stage: &Stage) {
    let mut connection = stage.database.superuser().await;
    let [envelopes, last, head, contents, pending]: [i64; 5] = sqlx::query_as::<_, (i64, i64, i64, i64, i64)>(
        "SELECT (SELECT count(*) FROM envelope), (SELECT max(seq) FROM envelope), (SELECT size FROM head),
                (SELECT count(*) FROM content), (SELECT count(*) FROM pending)",
    )
    .fetch_one(&mut connection)
    .await
    .unwrap()
    .into();
    assert_eq!([last, head, contents, pending], [envelopes, envelopes, envelopes, 0]);
}

fn edit(id: &str, of: &str, body: &str) -> Value {
    let mut content = text(body);
    content["m.new_content"] = text(body);
    content["m.relates_to"] = json!({"rel_type": "m.replace", "event_id": of});
    message(id, content)
}

fn answer(stage: &Stage, number: u32, events: &[Value], gap: Option<&str>, key: Option<Value>) {
    let mut answer = sync(&format!("s{}", number + 1), events, gap);
    if let Some(key) = key {
        answer["to_device"] = json!({"events": [key]});
    }
    stage.scene.fake.world().syncs.insert(format!("s{number}"), answer);
}

#[tokio::test(flavor = "multi_thread")]
async fn news_are_recorded_once_wherever_the_worker_dies() {
    let news: Tell = |stage, number, secret, key| {
        let named = |kind: &str, number: u32| format!("${kind}{number}");
        let mut events = vec![message(&named("a", number), text(&format!("a {number}"))), secret.clone()];
        if let Some(last) = number.checked_sub(1) {
            events.push(edit(&named("b", number), &named("a", last), &format!("a {last}, corrected")));
        }
        answer(stage, number, &events, None, key);
    };
    die_everywhere(|number| format!("s{number}"), 4, news).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn history_is_recorded_once_wherever_the_worker_dies() {
    let gap: Tell = |stage, number, secret, key| {
        let named = |kind: &str, number: u32| format!("${kind}{number}");
        let last = number.checked_sub(1).map_or_else(|| "$before".to_owned(), |last| named("new", last));
        let hidden = message(&named("hidden", number), text(&format!("hidden {number}")));
        let corrected = edit(&named("edit", number), &last, &format!("corrected before {number}"));
        let token = format!("p{number}");
        let mut events = vec![corrected, secret.clone(), hidden];
        // What it replaces is in the trail alone: the task that reads the page asks there, and is counted from then on.
        events.extend(number.checked_sub(1).map(|last| {
            edit(&named("late", number), &named("hidden", last), &format!("hidden {last}, corrected"))
        }));
        events.push(message(&last, text("known")));
        stage.scene.fake.world().pages.insert(token.clone(), page(&events, "the end"));
        let new = [message(&named("new", number), text(&format!("new {number}")))];
        answer(stage, number, &new, Some(&token), key);
    };
    // The transaction is the same as that of news.
    let tasks = die_everywhere(|number| format!("p{number}"), 12, gap).await;
    assert!(tasks > 1, "no page is made in a task that is counted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_outlives_its_worker_does_no_harm() {
    let stage = Stage::set().await;
    stage.scene.fake.world().syncs.insert(String::new(), sync("s0", &[], None));
    let mut running = stage.start(None);
    let tables = ["source", "envelope", "content", "subject", "cursor", "checkpoint"];
    for (number, table) in (0_u32..).zip(tables) {
        stage.until_asked(&format!("s{number}"), 1).await;
        let mut other = stage.database.superuser().await;
        other.execute("BEGIN").await.unwrap();
        lock(&mut other, table).await;
        answer(&stage, number, &[message(&format!("${number}"), text(table))], None, None);
        let mut observer = stage.database.superuser().await;
        // The transaction is under way, and executes a statement.
        while waiting(&mut observer).await == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        running.kill().await;
        // The next one finds the head taken until the statement ends and its answer finds nobody.
        running = stage.start(None);
        while waiting(&mut observer).await < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        other.execute("COMMIT").await.unwrap();
    }
    stage.until_asked(&format!("s{}", tables.len()), 1).await;
    running.stop().await.unwrap();
    let records = stage.room_records().await;
    let texts: Vec<_> = records.iter().map(|record| record[2].as_str().unwrap()).collect();
    assert_eq!(texts, tables, "in {ROOM}");
    is_whole(&stage).await;
}

async fn lock(connection: &mut sqlx::PgConnection, table: &str) {
    // In this mode it is in the way of writers only.
    let statement = match table {
        "source" => "LOCK TABLE source IN SHARE MODE",
        "envelope" => "LOCK TABLE envelope IN SHARE MODE",
        "content" => "LOCK TABLE content IN SHARE MODE",
        "subject" => "LOCK TABLE subject IN SHARE MODE",
        "cursor" => "LOCK TABLE cursor IN SHARE MODE",
        _ => "LOCK TABLE checkpoint IN SHARE MODE",
    };
    connection.execute(statement).await.unwrap();
}

/// Statements in this database that wait for a lock.
async fn waiting(connection: &mut sqlx::PgConnection) -> i64 {
    let count = "SELECT count(*) FROM pg_stat_activity
                 WHERE datname = current_database() AND wait_event_type = 'Lock'";
    sqlx::query_scalar(count).fetch_one(connection).await.unwrap()
}
