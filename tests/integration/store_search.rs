//! Searching a trail, against a real Postgres, as the real reader role.

use ems_bots::{
    domain::{
        filter::{PageRequest, SearchFilter},
        record::{Actor, Category, Change, Occurred, RecordDraft, Relation},
    },
    store::{AuditReader as _, AuditStore as _, pg::PgReader},
};
use jiff::Timestamp;
use serde_json::json;

use crate::{
    postgres::TestDatabase,
    store_append::{ALL, batch, message, now},
};

async fn sources(reader: &PgReader, filter: SearchFilter) -> Vec<String> {
    let page = reader.search(&filter, ALL).await.unwrap();
    page.items.into_iter().map(|item| item.content.unwrap().source_id).collect()
}

fn at(hours: i64) -> Timestamp {
    Timestamp::from_second(now().as_second() + hours * 3_600).unwrap()
}

#[tokio::test]
async fn each_condition_finds_what_it_says_and_nothing_else() {
    let database = TestDatabase::migrated().await;
    let store = database.writer(1);
    store.open(None).await.unwrap();
    let drafts = vec![
        RecordDraft { occurred: Occurred::At(at(-10).as_millisecond()), ..message("a", "quarterly invoice") },
        RecordDraft {
            actor: Actor::matrix("@bob:example.org"),
            occurred: Occurred::At(at(-5).as_millisecond()),
            ..message("b", "invoice")
        },
        RecordDraft {
            action: "room.member.joined".into(),
            relations: vec![Relation::new("room", "!other:example.org", "in")],
            occurred: Occurred::At(at(-1).as_millisecond()),
            text: None,
            ..message("c", "")
        },
        RecordDraft {
            action: "room.membership".into(),
            category: Category::ResourceChange,
            occurred: Occurred::Unknown,
            text: None,
            changes: vec![Change {
                path: "/m.room.name/name".into(),
                before: Some(json!("Berlin")),
                after: Some(json!({"name": ["Hamburg"]})),
            }],
            ..message("d", "")
        },
    ];
    store.append(&batch(drafts), now()).await.unwrap();
    let reader = database.reader().await;
    let none = SearchFilter::default;
    let text = |text: &str| SearchFilter { text: Some(text.to_owned()), ..none() };
    let action = |text: &str| SearchFilter { action: Some(text.to_owned()), ..none() };
    for (filter, expected) in [
        (none(), vec!["d", "c", "b", "a"]),
        (text("invoice"), vec!["b", "a"]),
        (text("INVOICE quarterly"), vec!["a"]),
        (text("invoice missing"), vec![]),
        (text("berlin"), vec!["d"]),
        (text("hamburg"), vec!["d"]),
        (SearchFilter { room: Some("!other:example.org".into()), ..none() }, vec!["c"]),
        (SearchFilter { actor: Some("@bob:example.org".into()), ..none() }, vec!["b"]),
        (action("room.member.joined"), vec!["c"]),
        (action("room.member."), vec!["c"]),
        (action("room."), vec!["d", "c"]),
        (action("room"), vec![]),
        (SearchFilter { category: Some(Category::ResourceChange), ..none() }, vec!["d"]),
        (SearchFilter { since: Some(at(-5)), ..none() }, vec!["d", "c", "b"]),
        (SearchFilter { until: Some(at(-5)), ..none() }, vec!["a"]),
        (SearchFilter { since: Some(at(-6)), until: Some(at(-1)), ..text("invoice") }, vec!["b"]),
    ] {
        let described = format!("{filter:?}");
        assert_eq!(sources(&reader, filter).await, expected, "{described}");
    }
}

#[tokio::test]
async fn pages_follow_one_another_without_gap_or_overlap_while_records_arrive() {
    let database = TestDatabase::migrated().await;
    let store = database.writer(1);
    store.open(None).await.unwrap();
    let drafts = (1..=25).map(|i| message(&format!("{i}"), "word")).collect();
    store.append(&batch(drafts), now()).await.unwrap();
    let reader = database.reader().await;
    let mut page = PageRequest { before_seq: None, limit: 10 };
    let mut seqs = Vec::new();
    loop {
        let found = reader.search(&SearchFilter::default(), page).await.unwrap();
        seqs.extend(found.items.iter().map(|item| item.seq));
        store.append(&batch(vec![message(&format!("new {}", seqs.len()), "word")]), now()).await.unwrap();
        page.before_seq = found.next_before_seq;
        if page.before_seq.is_none() {
            break;
        }
    }
    assert_eq!(seqs, (1..=25).rev().collect::<Vec<i64>>());
    let last =
        reader.search(&SearchFilter::default(), PageRequest { before_seq: Some(6), limit: 5 }).await.unwrap();
    assert_eq!((last.items.len(), last.next_before_seq), (5, None));
}
