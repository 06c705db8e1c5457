//! How many records a second the writer appends, beside what the same server takes as bare rows of
//! the same size in the same run: `TEST_DATABASE_URL=… cargo bench --bench append`.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark prints, and fails by panicking")]

use std::time::{Duration, Instant};

use ems_bots::{
    domain::record::{Actor, Category, Context, Occurred, RecordDraft, Relation, Subject, Trust},
    store::{AuditStore as _, Batch},
    trail::content,
};
use jiff::Timestamp;
use sqlx::Executor as _;

#[expect(
    dead_code,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "written for the tests, which use more of it"
)]
#[path = "../tests/integration/postgres.rs"]
mod postgres;

const BATCH: usize = 1_000;
const BATCHES: usize = 20;

/// As in an encrypted room: ciphertext, plaintext, and what is derived from them; about 1.4 kB.
fn message(number: usize) -> RecordDraft {
    let event_id = format!("${number:043}");
    RecordDraft {
        source_id: format!("matrix:event:{event_id}"),
        category: Category::UserActivity,
        action: "message.sent".to_owned(),
        occurred: Occurred::At(1_790_000_000_000),
        actor: Actor::matrix(format!("@user{}:example.org", number % 500)),
        on_behalf_of: None,
        context: Context { device_id: Some("ABCDEFGHIJ".to_owned()), ..Context::default() },
        relations: vec![
            Relation::new("room", format!("!room{}:example.org", number % 100), "in"),
            Relation::new("event", event_id, "is"),
        ],
        changes: vec![],
        text: Some(format!("message {number} about invoice {} and meeting {}", number % 977, number % 89)),
        source_raw: Some("c".repeat(800)),
        plaintext_raw: Some("p".repeat(250)),
        trust: Trust::VerifiedDevice,
        undecryptable_reason: None,
        subjects: vec![Subject {
            person: format!("@user{}:example.org", number % 500),
            role: "actor".to_owned(),
        }],
    }
}

fn report(what: &str, elapsed: Duration) -> f64 {
    let records = f64::from(u32::try_from(BATCH * BATCHES).unwrap());
    let rate = records / elapsed.as_secs_f64();
    println!("{what:<40} {rate:>8.0} records/s  ({BATCHES} transactions of {BATCH}, {elapsed:.1?})");
    rate
}

#[tokio::main]
async fn main() {
    // `cargo test --benches` runs this, too; it is no test.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let database = postgres::TestDatabase::migrated().await;
    let batches: Vec<Vec<RecordDraft>> =
        (0..BATCHES).map(|batch| (batch * BATCH..(batch + 1) * BATCH).map(message).collect()).collect();

    let mut connection = database.superuser().await;
    connection.execute("CREATE TABLE baseline (id bigint PRIMARY KEY, body bytea)").await.unwrap();
    let started = Instant::now();
    for (number, drafts) in batches.iter().enumerate() {
        let first = i64::try_from(number * BATCH).unwrap();
        let ids: Vec<i64> = (first..).take(BATCH).collect();
        let bodies: Vec<Vec<u8>> = drafts.iter().map(content::encode).collect();
        sqlx::query("INSERT INTO baseline SELECT * FROM unnest($1::bigint[], $2::bytea[])")
            .bind(ids)
            .bind(bodies)
            .execute(&mut connection)
            .await
            .unwrap();
    }
    let baseline = report("baseline: bare rows in one table", started.elapsed());

    let store = database.writer(1);
    store.open(None).await.unwrap();
    let now = Timestamp::from_second(1_790_000_000).unwrap();
    let started = Instant::now();
    for drafts in batches {
        store.append(&Batch { drafts, ..Batch::default() }, now).await.unwrap();
    }
    let ours = report("trail: source, envelope, content, search", started.elapsed());
    println!("share of the baseline: {:.0} %", 100.0 * ours / baseline);
}
