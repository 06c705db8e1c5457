//! No value that a user controls can fail an insert or get lost: each hostile record is stored,
//! comes back as it was, and the ordinary record after it arrives.

use std::time::{Duration, Instant};

use ems_bots::{
    domain::{
        filter::SearchFilter,
        record::{Actor, Category, Change, Context, Occurred, RecordDraft, Relation, Subject, Trust},
    },
    store::{AuditReader as _, AuditStore as _, pg::PgStore},
};
use proptest::{collection::vec, option, prelude::*, test_runner::TestRunner};
use serde_json::{Value, json};

use crate::{
    postgres::TestDatabase,
    store_append::{ALL, batch, message, now},
};

/// Any text at all, and those that databases, encoders and indexes stumble over.
fn text() -> impl Strategy<Value = String> {
    let fragment = prop_oneof![
        vec(any::<char>(), 0..40).prop_map(String::from_iter),
        Just("\0".to_owned()),
        Just("\\u0000".to_owned()),
        Just("\\ud800".to_owned()),
        Just("\u{1e}\u{1f}".to_owned()),
        Just("'; DROP TABLE content; --".to_owned()),
        Just("{\"a\":1e400,\"b\":\"\\udc00\"}".to_owned()),
        Just("{}{}[]\"\\,NULL".to_owned()),
        Just("http://a.example/b?c=d e-f-g @h:i /j".to_owned()),
        (any::<char>(), 0..5_000_usize).prop_map(|(c, count)| String::from_iter(vec![c; count])),
    ];
    vec(fragment, 0..4).prop_map(|fragments| fragments.concat())
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<f64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        text().prop_map(Value::from),
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((text(), inner), 0..4).prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn draft() -> impl Strategy<Value = RecordDraft> {
    let optional: [_; 10] = std::array::from_fn(|_| option::of(text()));
    let occurred = prop_oneof![
        any::<i64>().prop_map(Occurred::At),
        any::<(i64, i64)>().prop_map(|(from, to)| Occurred::Between(from, to)),
        (1_262_304_000_000..1_790_000_000_000_i64).prop_map(Occurred::At),
        Just(Occurred::Unknown),
    ];
    let actor = prop_oneof![
        text().prop_map(|id| Actor::MatrixUser { id }),
        (text(), vec(text(), 0..3)).prop_map(|(id, groups)| Actor::KubernetesUser { id, groups }),
        Just(Actor::Unknown),
    ];
    let lists = (
        vec((text(), text(), text()), 0..4),
        vec((text(), option::of(value()), option::of(value())), 0..3),
        vec((text(), text()), 0..3),
    );
    (text(), text(), 0..5_usize, occurred, actor, optional, lists).prop_map(
        |(source_id, action, category, occurred, actor, optional, (relations, changes, subjects))| {
            let [a, device_id, ip, user_agent, session_id, reason, text, source_raw, plaintext_raw, b] =
                optional;
            RecordDraft {
                source_id,
                category: Category::ALL[category],
                action,
                occurred,
                actor,
                on_behalf_of: a,
                context: Context { device_id, ip, user_agent, session_id, reason },
                relations: relations.into_iter().map(|(k, i, r)| Relation::new(k, i, r)).collect(),
                changes: changes
                    .into_iter()
                    .map(|(path, before, after)| Change { path, before, after })
                    .collect(),
                text,
                source_raw,
                plaintext_raw,
                trust: Trust::UnknownDevice,
                undecryptable_reason: b,
                subjects: subjects.into_iter().map(|(person, role)| Subject { person, role }).collect(),
            }
        },
    )
}

/// So many different words.
fn numbered(count: u32, rest: &str) -> String {
    (0..count).map(|i| format!("w{i}{rest}")).collect::<Vec<_>>().join(" ")
}

/// Stores it, followed by an ordinary record, and compares what comes back.
async fn survives(store: &PgStore, name: &str, draft: RecordDraft) {
    let started = Instant::now();
    let ordinary = message(&format!("ordinary after {name}"), "ordinary");
    let appended =
        store.append(&batch(vec![draft.clone()]), now()).await.unwrap_or_else(|e| panic!("{name}: {e:?}"));
    assert_eq!(appended.opaque, 0, "{name}: the database refused a derived column");
    assert_eq!(appended.seqs, [Some(appended.point.size)], "{name}");
    let next = store.append(&batch(vec![ordinary.clone()]), now()).await.unwrap();
    assert_eq!(next.seqs, [Some(appended.point.size + 1)], "{name}");
    let found = store.find_by_source(&draft.source_id).await.unwrap().unwrap();
    assert!(found.content.as_ref() == Some(&draft), "{name} did not come back as it was");
    let found = store.find_by_source(&ordinary.source_id).await.unwrap().unwrap();
    assert_eq!(found.content, Some(ordinary));
    assert!(started.elapsed() < Duration::from_secs(30), "{name} took {:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn any_record_is_stored_and_comes_back_as_it_was() {
    let database = TestDatabase::migrated().await;
    let store = database.writer(1);
    store.open(None).await.unwrap();
    let handle = tokio::runtime::Handle::current();
    let mut runner =
        TestRunner::new(ProptestConfig { cases: 60, failure_persistence: None, ..Default::default() });
    let number = std::cell::Cell::new(0);
    let outcome = tokio::task::block_in_place(|| {
        runner.run(&vec(draft(), 1..4), |mut drafts| {
            for draft in &mut drafts {
                number.set(number.get() + 1);
                draft.source_id = format!("{}:{}", number.get(), draft.source_id);
            }
            handle.block_on(async {
                let before = store.head().await.unwrap();
                let appended = store.append(&batch(drafts.clone()), now()).await.unwrap();
                prop_assert_eq!(appended.opaque, 0);
                prop_assert_eq!(appended.point.size, before.size + i64::try_from(drafts.len()).unwrap());
                for draft in drafts {
                    let found = store.find_by_source(&draft.source_id).await.unwrap().unwrap();
                    prop_assert_eq!(found.content, Some(draft));
                }
                Ok(())
            })
        })
    });
    outcome.unwrap();
    // Whatever it was, the reader can list it.
    let reader = database.reader().await;
    reader.search(&SearchFilter::default(), ALL).await.unwrap();
}

#[tokio::test]
async fn monsters_are_stored_and_come_back_as_they_were() {
    let database = TestDatabase::migrated().await;
    let store = database.writer(1);
    store.open(None).await.unwrap();
    let plain = |name: &str| message(name, "");
    let nested = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
    let cases: Vec<(&str, RecordDraft)> = vec![
        ("nul", RecordDraft { text: Some("a\0b".into()), ..plain("nul\0") }),
        (
            "nul everywhere",
            RecordDraft {
                action: "\0".into(),
                actor: Actor::matrix("\0"),
                relations: vec![Relation::new("room", "\0", "in"), Relation::new("\0", "\0", "\0")],
                changes: vec![Change {
                    path: "\0".into(),
                    before: Some(json!("\0")),
                    after: Some(json!({"\0": "\0"})),
                }],
                subjects: vec![Subject { person: "\0".into(), role: "\0".into() }],
                ..plain("\0")
            },
        ),
        (
            "lone surrogates",
            RecordDraft { source_raw: Some(r#"{"body":"\ud800 \udfff"}"#.into()), ..plain("s") },
        ),
        (
            "huge number",
            RecordDraft { source_raw: Some(format!("{{\"n\":1{}}}", "0".repeat(400))), ..plain("n") },
        ),
        (
            "deep source",
            RecordDraft { source_raw: Some(nested.clone()), plaintext_raw: Some(nested), ..plain("d") },
        ),
        ("long word", RecordDraft { text: Some("w".repeat(1 << 20)), ..plain("w") }),
        ("long path word", RecordDraft { text: Some(format!("/{}", "p/".repeat(1 << 19))), ..plain("p") }),
        ("hyphens", RecordDraft { text: Some("a-".repeat(1 << 19)), ..plain("h") }),
        ("dots", RecordDraft { text: Some("a.b@".repeat(1 << 18)), ..plain("dots") }),
        ("tags", RecordDraft { text: Some("<a ".repeat(1 << 18)), ..plain("tags") }),
        ("many words", RecordDraft { text: Some(numbered(200_000, "")), ..plain("many words") }),
        ("long words", RecordDraft { text: Some(numbered(600, &"é".repeat(1_000))), ..plain("long words") }),
        (
            "long keys",
            RecordDraft {
                action: "a".repeat(100_000),
                actor: Actor::matrix("@".repeat(100_000)),
                relations: vec![
                    Relation::new("room", "!".repeat(100_000), "in"),
                    Relation::new("k".repeat(100_000), "i".repeat(100_000), "r".repeat(100_000)),
                ],
                changes: vec![Change {
                    path: "/".repeat(100_000),
                    before: Some(json!({ "k".repeat(100_000): 1 })),
                    after: None,
                }],
                subjects: vec![Subject { person: "p".repeat(100_000), role: "r".repeat(100_000) }],
                ..plain(&"s".repeat(100_000))
            },
        ),
        (
            "10,000 relations",
            RecordDraft {
                relations: (0..10_000)
                    .map(|i| Relation::new("event", format!("$event{i}:example.org"), "target"))
                    .collect(),
                subjects: (0..10_000)
                    .map(|i| Subject { person: format!("@u{i}:example.org"), role: "mentioned".into() })
                    .collect(),
                ..plain("relations")
            },
        ),
        ("20 MiB", RecordDraft { source_raw: Some("\u{10ffff}".repeat(5 << 20)), ..plain("20 MiB") }),
        ("beginning of time", RecordDraft { occurred: Occurred::At(i64::MIN), ..plain("min") }),
        ("end of time", RecordDraft { occurred: Occurred::Between(i64::MIN, i64::MAX), ..plain("max") }),
    ];
    for (name, draft) in cases {
        survives(&store, name, draft).await;
    }
}

/// No parser makes such a value (`serde_json` stops at 128), and dropping one recurses; hence the
/// thread with a large stack, whose size the store must not need.
#[test]
fn changes_nested_10_000_deep_come_back_as_they_were() {
    let test = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(deeply_nested_changes());
    };
    std::thread::Builder::new().stack_size(256 << 20).spawn(test).unwrap().join().unwrap();
}

async fn deeply_nested_changes() {
    let database = TestDatabase::migrated().await;
    let store = database.writer(1);
    store.open(None).await.unwrap();
    let deep = || {
        let mut value = json!("core of the matter");
        for _ in 0..5_000 {
            value = Value::Array(vec![value]);
            let mut members = serde_json::Map::new();
            members.insert("k".to_owned(), value);
            value = Value::Object(members);
        }
        value
    };
    let mut draft = message("deep", "");
    draft.changes = vec![Change { path: "/".into(), before: None, after: Some(deep()) }];
    store.append(&batch(vec![draft]), now()).await.unwrap();
    store.append(&batch(vec![message("ordinary", "")]), now()).await.unwrap();
    let found = store.find_by_source("deep").await.unwrap().unwrap().content.unwrap();
    let mut depth = 0;
    let mut value = found.changes[0].after.as_ref().unwrap();
    while let Some(inner) = value.get(0).or_else(|| value.get("k")) {
        value = inner;
        depth += 1;
    }
    assert_eq!((depth, value), (10_000, &json!("core of the matter")));
    let words = SearchFilter { text: Some("core matter".into()), ..SearchFilter::default() };
    assert_eq!(database.reader().await.search(&words, ALL).await.unwrap().items.len(), 1);
}

#[tokio::test]
async fn odd_values_are_found_exactly() {
    let database = TestDatabase::migrated().await;
    let store = database.writer(1);
    store.open(None).await.unwrap();
    let rooms = ["!a\0".to_owned(), "!a\u{1}".to_owned(), "!".repeat(300), "!".repeat(301), "!a".to_owned()];
    let drafts = rooms.iter().enumerate().map(|(i, room)| RecordDraft {
        relations: vec![Relation::new("room", room.clone(), "in")],
        actor: Actor::matrix(room.clone()),
        action: room.clone(),
        ..message(&i.to_string(), "x\0y")
    });
    store.append(&batch(drafts.collect()), now()).await.unwrap();
    let reader = database.reader().await;
    for (i, room) in rooms.iter().enumerate() {
        for filter in [
            SearchFilter { room: Some(room.clone()), ..SearchFilter::default() },
            SearchFilter { actor: Some(room.clone()), ..SearchFilter::default() },
            SearchFilter { action: Some(room.clone()), ..SearchFilter::default() },
        ] {
            let found = reader.search(&filter, ALL).await.unwrap().items;
            let sources: Vec<_> =
                found.iter().filter_map(|r| r.content.as_ref()).map(|c| &c.source_id).collect();
            assert_eq!(sources, [&i.to_string()]);
        }
    }
    let text = SearchFilter { text: Some("y\0x' & | ! :* <->".into()), ..SearchFilter::default() };
    assert_eq!(reader.search(&text, ALL).await.unwrap().items.len(), 5);
}
