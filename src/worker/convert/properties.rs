//! Whatever arrives, it becomes a record.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    Earlier, Encryption, Input, Plaintext, convert, lenient, needs, tests::is_of_the_vocabulary, vocabulary,
};
use crate::domain::record::{RecordDraft, Trust};

const BOT: &str = "@auditbot:example.org";

fn event(kind: &str, content: &Value) -> Value {
    json!({"event_id": "$e", "sender": "@alice:example.org", "type": kind, "origin_server_ts": 1, "content": content})
}

/// Fields that only some types have.
const KEYS: &[&str] = &[
    "additional_creators",
    "alias",
    "allow",
    "algorithm",
    "answers",
    "bridgebot",
    "call_id",
    "deny",
    "description",
    "display_name",
    "entity",
    "events",
    "geo_uri",
    "info",
    "duration",
    "invitee",
    "live",
    "m.poll",
    "m.selections",
    "m.text",
    "memberships",
    "msgtype",
    "notifications",
    "offer",
    "org.matrix.msc3245.voice",
    "org.matrix.msc3381.poll.start",
    "org.matrix.msc3488.location",
    "pinned",
    "protocol",
    "question",
    "recommendation",
    "room_version",
    "third_party_invite",
    "timeout",
    "users_default",
    "via",
];

/// Every type of the tables, and some of no table.
fn kinds() -> Vec<String> {
    let tables = [vocabulary::MESSAGES, vocabulary::STATES, vocabulary::REDACTIONS];
    let known = tables.into_iter().flatten().flat_map(|row| row.of).map(|kind| kind.replace('*', "x"));
    let others = ["m.room.member", "m.room.redaction", "m.room.encrypted", "unknown", ""];
    // Those with most to look at come more often.
    let often = std::iter::repeat_n(others, 4).flatten();
    known.chain(often.map(str::to_owned)).collect()
}

/// Types, fields and shapes that the converters look at, mixed with anything.
fn hostile_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".*".prop_map(Value::from),
        Just(json!("m.replace")),
        Just(json!("> quoted\n> \n")),
        Just(json!("$e")),
        Just(json!("m.annotation")),
        Just(json!("join")),
    ];
    leaf.prop_recursive(4, 48, 8, |inner| {
        let key = prop_oneof![
            Just("body".to_owned()),
            Just("m.relates_to".to_owned()),
            Just("m.new_content".to_owned()),
            Just("rel_type".to_owned()),
            Just("event_id".to_owned()),
            Just("key".to_owned()),
            Just("membership".to_owned()),
            Just("users".to_owned()),
            Just("m.mentions".to_owned()),
            Just("user_ids".to_owned()),
            Just("m.in_reply_to".to_owned()),
            prop::sample::select(KEYS).prop_map(str::to_owned),
            ".{0,6}",
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((key, inner), 0..8)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

fn hostile_event() -> impl Strategy<Value = String> {
    let kind = prop::sample::select(kinds());
    (kind, hostile_value(), hostile_value(), any::<bool>(), any::<bool>(), ".{0,8}").prop_map(
        |(kind, content, unsigned, is_state, surrogates, tail)| {
            let mut event = event(&kind, &content);
            event["unsigned"] = json!({"prev_content": unsigned.clone(), "redacted_because": unsigned});
            event["redacts"] = json!("$x");
            if is_state {
                event["state_key"] = tail.clone().into();
            }
            let text = event.to_string();
            if surrogates { text.replace("body", "bo\\ud800dy\\udc00") } else { text + tail.as_str() }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_event_fails(raw in hostile_event(), old in hostile_event(), mode in 0..5_u8, found in 0..4_u8) {
        let plain = Plaintext { raw: &old, trust: Trust::VerifiedDevice, device_id: None, session_id: None };
        let encryption = match mode {
            0 => Encryption::Decrypted(plain),
            1 => Encryption::DecryptedLater(plain),
            2 => Encryption::Failed("missing_key"),
            _ => Encryption::None,
        };
        let input = Input { room_id: "!r", raw: &raw, encryption, caused_by: (mode == 4).then_some(BOT) };
        let _ = needs(&input);
        let earlier = match found {
            0 => None,
            1 => Some(Earlier::Event(lenient::parse(&old).value)),
            2 => Some(Earlier::Perhaps(Box::new(Earlier::Event(lenient::parse(&old).value)))),
            _ => Some(Earlier::Record(Box::new(convert(
                &Input { room_id: "!r", raw: &old, encryption: Encryption::None, caused_by: None }, None)))),
        };
        let record = convert(&input, earlier.as_ref());
        prop_assert_eq!(record.source_raw.as_deref(), Some(raw.as_str()));
        prop_assert!(!record.action.is_empty() && !record.source_id.is_empty());
        prop_assert!(record.changes.len() <= 1000);
        is_of_the_vocabulary(&record);
        // Whatever it is, it can be stored and read back.
        let text = serde_json::to_string(&record).unwrap();
        prop_assert!(serde_json::from_str::<RecordDraft>(&text).is_ok());
    }

    #[test]
    fn no_text_fails(raw in ".*", room in ".*") {
        let input = Input { room_id: &room, raw: &raw, encryption: Encryption::None, caused_by: None };
        let record = convert(&input, None);
        prop_assert_eq!(record.source_raw.as_deref(), Some(raw.as_str()));
    }
}
