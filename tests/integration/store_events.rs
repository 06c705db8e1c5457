//! Whatever a homeserver sends, its record is stored and comes back as it was, and the ordinary message after it is found.
//! What the database refuses to derive is kept all the same, and marked; what no parser reads is kept as it came, and said.

use std::collections::BTreeMap;

use ems_bots::{
    domain::{
        filter::SearchFilter,
        record::{RecordDraft, Relation, Trust},
    },
    store::{
        AuditReader as _, AuditStore as _, derive,
        pg::{PgReader, PgStore},
    },
    worker::convert::{Earlier, Encryption, Input, Plaintext, convert},
};
use proptest::{
    collection::vec,
    option,
    prelude::*,
    sample::select,
    test_runner::{RngAlgorithm, TestCaseError, TestRng, TestRunner},
};
use serde_json::{Value, value::RawValue};
use sqlx::{Executor as _, PgConnection};
use tokio::sync::Mutex;

use crate::{
    postgres::TestDatabase,
    store_append::{ALL, batch, message, now},
};

/// Says which cases there are: 64 hexadecimal digits, as a failed run prints them.
const SEED: &str = "EMS_TEST_SEED";
/// What is derived from records of this room the database refuses.
const REFUSED: &str = "!refused:example.org";

const KINDS: &[&str] = &[
    "m.room.message",
    "m.room.encrypted",
    "m.room.redaction",
    "m.room.member",
    "m.room.create",
    "m.room.power_levels",
    "m.room.server_acl",
    "m.room.pinned_events",
    "m.space.child",
    "m.policy.rule.user",
    "m.bridge",
    "m.reaction",
    "m.poll.start",
    "m.poll.response",
    "m.call.invite",
    "m.call.member",
    "m.beacon_info",
    "org.example.unknown",
];

/// Fields that converters look at.
const FIELDS: &[&str] = &[
    "alias",
    "answers",
    "body",
    "call_id",
    "deny",
    "entity",
    "event_id",
    "geo_uri",
    "key",
    "m.mentions",
    "m.new_content",
    "m.poll",
    "m.relates_to",
    "m.text",
    "membership",
    "msgtype",
    "pinned",
    "prev_content",
    "protocol",
    "question",
    "redacted_because",
    "rel_type",
    "room_version",
    "url",
    "user_ids",
    "users",
    "via",
];

/// Those at the ends of what has a type, and beyond.
const NUMBERS: &[&str] = &[
    "0",
    "-0",
    "-1.5e-300",
    "1e400",
    "-1e999999999999",
    "9007199254740993",
    "18446744073709551616",
    "-9223372036854775809",
    "0.1234567890123456789012345678901234567890",
];
const CONSTANTS: &[&str] = &["null", "true", "false", "[]", "{}"];

/// Inside of a text of JSON: what databases, encoders, parsers and indexes stumble over.
fn characters() -> impl Strategy<Value = String> {
    let fragment = prop_oneof![
        Just(r"\u0000".to_owned()),
        Just(r"\ud800".to_owned()),
        Just(r"\udfff\ud800".to_owned()),
        Just(r"\ud83d\ude00".to_owned()),
        Just(r"\u001e\u001f\\u0000".to_owned()),
        Just("'; DROP TABLE content; --".to_owned()),
        Just("> quoted\\n> \\n".to_owned()),
        Just("m.replace".to_owned()),
        Just("mxc://example.org/file".to_owned()),
        Just("@alice:example.org".to_owned()),
        Just("$self".to_owned()),
        "[^\"\\\\[:cntrl:]]{0,12}",
        (1..20_000_usize).prop_map(|length| "w".repeat(length)),
        (1..5_000_usize).prop_map(|length| "a-b.c@/".repeat(length)),
    ];
    vec(fragment, 0..4).prop_map(|fragments| fragments.concat())
}

fn quoted() -> impl Strategy<Value = String> {
    characters().prop_map(|text| format!("\"{text}\""))
}

/// A value of JSON, as text: no parser has been through it.
fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        3 => quoted(),
        1 => select(NUMBERS).prop_map(str::to_owned),
        1 => select(CONSTANTS).prop_map(str::to_owned),
        1 => (1..20_000_usize).prop_map(|depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth))),
        1 => (1..400_usize).prop_map(|depth| format!("{}1{}", "{\"body\":".repeat(depth), "}".repeat(depth))),
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        let name = prop_oneof![4 => select(FIELDS).prop_map(|name| format!("\"{name}\"")), 1 => quoted()];
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(|items| format!("[{}]", items.join(","))),
            object(vec((name, inner), 0..6)),
        ]
    })
}

/// The same field may come twice.
fn object(members: impl Strategy<Value = Vec<(String, String)>>) -> impl Strategy<Value = String> {
    members.prop_map(|members| {
        let members: Vec<String> =
            members.into_iter().map(|(name, value)| format!("{name}:{value}")).collect();
        format!("{{{}}}", members.join(","))
    })
}

/// As a homeserver sends it, where a field may be anything or missing; `$self` stands for its identifier.
fn event() -> impl Strategy<Value = String> {
    let kind = select(KINDS).prop_map(|kind| format!("\"{kind}\""));
    let field = |name: &'static str, usual: BoxedStrategy<String>| {
        prop_oneof![8 => usual.prop_map(Some), 1 => value().prop_map(Some), 1 => Just(None)]
            .prop_map(move |value| value.map(|value| (format!("\"{name}\""), value)))
    };
    let fixed = |text: &'static str| Just(text.to_owned()).boxed();
    let fields = (
        field("event_id", fixed("\"$self\"")),
        field("sender", fixed("\"@mallory:example.org\"")),
        field("type", kind.boxed()),
        field("origin_server_ts", fixed("1790000000000")),
        field("content", value().boxed()),
        option::of(field("unsigned", value().boxed())),
        option::of(field("state_key", quoted().boxed())),
        option::of(field("redacts", fixed("\"$self\""))),
    );
    let members = fields.prop_map(|(id, sender, kind, time, content, unsigned, key, redacts)| {
        let often = [id, sender, kind, time, content];
        often.into_iter().chain([unsigned, key, redacts].map(Option::flatten)).flatten().collect()
    });
    (object(members), option::weighted(0.1, any::<prop::sample::Index>())).prop_map(|(text, end)| match end {
        // Cut off somewhere.
        Some(end) => text.chars().take(end.index(text.chars().count())).collect(),
        None => text,
    })
}

/// An event, another text that is its plaintext or what was there before, and what becomes of them.
#[derive(Debug, Clone)]
struct Case {
    raw: String,
    other: String,
    encryption: u8,
    is_edit: bool,
    is_refused: bool,
}

fn case() -> impl Strategy<Value = Case> {
    (event(), event(), 0..6_u8, any::<bool>(), any::<bool>()).prop_map(
        |(raw, other, encryption, is_edit, is_refused)| Case { raw, other, encryption, is_edit, is_refused },
    )
}

impl Case {
    /// The number makes its identifier and its room one that no other case has.
    fn record(&self, number: u32) -> RecordDraft {
        let name = |text: &str| text.replace("$self", &format!("$event{number}"));
        let (raw, other) = (name(&self.raw), name(&self.other));
        let room = if self.is_refused { REFUSED.to_owned() } else { format!("!room{number}:example.org") };
        let plain =
            Plaintext { raw: &other, trust: Trust::UnknownDevice, device_id: None, session_id: Some("s") };
        let encryption = match self.encryption {
            0 => Encryption::Decrypted(plain),
            1 => Encryption::DecryptedLater(plain),
            2 => Encryption::Failed("missing_key"),
            _ => Encryption::None,
        };
        let old = Input { room_id: &room, raw: &other, encryption: Encryption::None, caused_by: None };
        let earlier = self.is_edit.then(|| Earlier::Record(Box::new(convert(&old, None))));
        let input = Input { raw: &raw, encryption, ..old };
        let record = convert(&input, earlier.as_ref());
        assert_eq!(record.source_raw.as_deref(), Some(raw.as_str()));
        let plaintext = matches!(self.encryption, 0 | 1).then_some(other.as_str());
        assert_eq!(record.plaintext_raw.as_deref(), plaintext);
        for text in [Some(raw.as_str()), plaintext].into_iter().flatten() {
            is_said(&record, text);
        }
        record
    }
}

/// What no parser reads is said in the record: a field, or all of it. Halves of characters are mended before.
fn is_said(record: &RecordDraft, raw: &str) {
    let is_mended = raw.contains(r"\ud") || raw.contains(r"\uD");
    let fields = serde_json::from_str::<BTreeMap<String, &RawValue>>(raw);
    let is_readable = |field: &&RawValue| serde_json::from_str::<Value>(field.get()).is_ok();
    if is_mended || fields.is_ok_and(|fields| fields.values().all(is_readable)) {
        return;
    }
    let is_unreadable = |one: &Relation| (one.kind.as_str(), one.role.as_str()) == ("field", "unreadable");
    assert!(record.relations.iter().any(is_unreadable), "{:?}: {raw}", record.relations);
}

/// A trail, its reader, and a look at its tables.
struct Stage {
    store: PgStore,
    reader: PgReader,
    superuser: Mutex<PgConnection>,
}

impl Stage {
    async fn set(database: &TestDatabase) -> Self {
        let store = database.writer(1);
        store.open(None).await.unwrap();
        let mut superuser = database.superuser().await;
        superuser
            .execute(
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
                 BEGIN RAISE EXCEPTION 'value out of range' USING ERRCODE = '22003'; END $$;
                 CREATE TRIGGER refuse BEFORE INSERT ON content FOR EACH ROW
                     WHEN (NEW.room = '!refused:example.org') EXECUTE FUNCTION refuse()",
            )
            .await
            .unwrap();
        Self { store, reader: database.reader().await, superuser: Mutex::new(superuser) }
    }

    /// Stores the record of the case and an ordinary message after it, and looks for both.
    async fn survives(&self, case: &Case, number: u32) -> Result<(), TestCaseError> {
        let record = case.record(number);
        // Whoever chooses identifiers freely may choose one twice: that is the same event.
        let first = self.store.find_by_source(&record.source_id).await.unwrap();
        let is_new = first.is_none();
        let appended = self.store.append(&batch(vec![record.clone()]), now()).await.unwrap();
        prop_assert_eq!(appended.seqs[0].is_some(), is_new);
        prop_assert_eq!(appended.opaque, usize::from(is_new && case.is_refused));
        if let Some(seq) = appended.seqs[0] {
            let found = self.store.find_by_source(&record.source_id).await.unwrap().unwrap();
            prop_assert_eq!(found.content.as_ref(), Some(&record));
            let derived: i16 = sqlx::query_scalar("SELECT derived FROM content WHERE seq = $1")
                .bind(seq)
                .fetch_one(&mut *self.superuser.lock().await)
                .await
                .unwrap();
            prop_assert_eq!(derived, if case.is_refused { 0 } else { derive::VERSION });
        }
        let word = format!("ordinary{number}");
        let ordinary = message(&format!("message {number}"), &word);
        let appended = self.store.append(&batch(vec![ordinary.clone()]), now()).await.unwrap();
        prop_assert_eq!((appended.opaque, appended.seqs), (0, vec![Some(appended.point.size)]));
        let filter = SearchFilter { text: Some(word), ..SearchFilter::default() };
        let found = self.reader.search(&filter, ALL).await.unwrap().items;
        let found: Vec<_> = found.into_iter().filter_map(|record| record.content).collect();
        prop_assert_eq!(found, [ordinary]);
        Ok(())
    }
}

fn seed() -> [u8; 32] {
    let seed = match std::env::var(SEED) {
        Ok(digits) => hex::decode(digits).ok().and_then(|bytes| bytes.try_into().ok()).expect("64 digits"),
        Err(_) => rand::rng().random::<[u8; 32]>(),
    };
    println!("{SEED}={}", hex::encode(seed));
    seed
}

#[tokio::test(flavor = "multi_thread")]
async fn the_record_of_any_event_is_stored_and_an_ordinary_one_after_it() {
    let database = TestDatabase::migrated().await;
    let stage = Stage::set(&database).await;
    let handle = tokio::runtime::Handle::current();
    let config =
        ProptestConfig { cases: 96, max_shrink_iters: 200, failure_persistence: None, ..Default::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed()));
    let number = std::cell::Cell::new(0);
    let outcome = tokio::task::block_in_place(|| {
        runner.run(&case(), |case| {
            number.set(number.get() + 1);
            handle.block_on(stage.survives(&case, number.get()))
        })
    });
    outcome.unwrap();
    // Whatever it was, the reader can list it.
    stage.reader.search(&SearchFilter::default(), ALL).await.unwrap();
}
