//! Every rule about one state of an object: what it accepts and what it refuses.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{KINDS, minimal, refusals, rules_of, transitions, with};
use crate::domain::BotKind;

/// A field, the beginning of the sentence, and values of either side.
struct Case {
    pointer: &'static str,
    sentence: &'static str,
    accepted: Vec<Value>,
    refused: Vec<Value>,
}

fn case(pointer: &'static str, sentence: &'static str, accepted: Value, refused: Value) -> Case {
    let list = |value: Value| value.as_array().unwrap().clone();
    Case { pointer, sentence, accepted: list(accepted), refused: list(refused) }
}

fn urls(pointer: &'static str, sentence: &'static str) -> Case {
    case(
        pointer,
        sentence,
        json!([
            "http://synapse:8008",
            "https://matrix.example.org",
            "https://a.b/c/d",
            "http://10.0.0.1:8008/",
            "http://[::1]:8008"
        ]),
        json!([
            "matrix.example.org",
            "ftp://a.b",
            "https://user:secret@a.b",
            "https://a.b/?token=x",
            "https://a.b#x",
            "https://",
            "https://a b",
            "http://a.b:port",
            "http://-a",
            "https://a.b\n"
        ]),
    )
}

fn secret_names(pointer: &'static str) -> Case {
    case(
        pointer,
        "name must be the name of a Secret in the bot's own namespace",
        json!(["ems-bots-database", "a.b"]),
        json!(["Upper", "other-namespace/secret", "-a", "a\n"]),
    )
}

fn keys(pointer: &'static str) -> Case {
    case(pointer, "key must be a key of the Secret", json!(["access-token", "A_b.c"]), json!(["a/b", "a b"]))
}

fn room_ids(pointer: &'static str, sentence: &'static str) -> Case {
    case(
        pointer,
        sentence,
        json!([["!a:example.org", "!31hneApxJ_1o-63DmFrpeqnkFfWppnzWso1JvH3ogLM"], []]),
        json!([["#alias:example.org"], ["!a:b", "room"], ["!a b"], ["!a\u{1}b"]]),
    )
}

fn quantities(pointer: &'static str, sentence: &'static str) -> Case {
    case(pointer, sentence, json!(["2Gi", "1500m", "3"]), json!(["much", "-1Gi", "0", "1 Gi"]))
}

/// Cases for both kinds.
fn common() -> Vec<Case> {
    let mut cases = homeserver();
    cases.extend(account_and_rooms());
    cases.extend(database_and_worker());
    cases
}

fn homeserver() -> Vec<Case> {
    vec![
        case(
            "/metadata/name",
            "metadata.name must have at most 40 characters",
            json!(["a", "audit-2", "a".repeat(40)]),
            json!(["a".repeat(41), "a.b", "-a", "Abc"]),
        ),
        case(
            "/spec/homeserver/serverName",
            "serverName must be the name of the homeserver",
            json!(["example.org", "example.org:8448", "[::1]:8448", "localhost"]),
            json!(["https://example.org", "exa mple", "example.org/", "@a:example.org", "-a", "a\n"]),
        ),
        urls("/spec/homeserver/url", "url must be an http"),
        urls("/spec/homeserver/publicURL", "publicURL must be an http"),
        secret_names("/spec/homeserver/caSecretRef/name"),
        keys("/spec/homeserver/caSecretRef/key"),
        case(
            "/spec/homeserver/adminApi",
            "adminApi must have exactly one of",
            json!([{"accessToken": {"name": "a", "key": "b"}}, {"registrationSharedSecret": {"name": "a", "key": "b"}},
                {"mas": {"clientID": "a", "clientSecret": {"name": "a", "key": "b"}}}]),
            json!([{}, {"accessToken": {"name": "a", "key": "b"}, "registrationSharedSecret": {"name": "a", "key": "b"}}]),
        ),
        secret_names("/spec/homeserver/adminApi/accessToken/name"),
        keys("/spec/homeserver/adminApi/accessToken/key"),
        case(
            "/spec/homeserver/adminApi/mas/clientID",
            "clientID must be one line of text",
            json!(["0000000000000000000SYNAPSE"]),
            json!(["a\nb"]),
        ),
        urls("/spec/homeserver/adminApi/mas/url", "url must be an http"),
        case(
            "/spec",
            "username and serverName are too long together",
            json!([
                {"username": "a".repeat(8), "homeserver": server(230)},
                {"username": "a".repeat(64), "homeserver": server(174)},
            ]),
            json!([{"username": "a".repeat(9), "homeserver": server(230)}]),
        ),
    ]
}

fn account_and_rooms() -> Vec<Case> {
    vec![
        case(
            "/spec/username",
            "username must be the part of the user ID",
            json!(["adminbot", "audit.bot_2", "a=b/c+d-e"]),
            json!(["@adminbot", "Adminbot", "_bot", "1bot", "a:b", "a b", "ä"]),
        ),
        case(
            "/spec/displayName",
            "displayName must be one line",
            json!(["Audit Bot of Example Ltd. ✅"]),
            json!(["a\nb", "a\tb", "a\u{7f}"]),
        ),
        room_ids("/spec/rooms/deny", "deny must list room IDs"),
        room_ids("/spec/rooms/only", "only must list room IDs"),
        room_ids("/spec/rooms/excludeSpaces", "excludeSpaces must list room IDs"),
        case(
            "/spec/rooms/excludeUsers",
            "excludeUsers must list full user IDs",
            json!([["@alice:example.org", "@Old!Name:example.org:8448"], []]),
            json!([["alice"], ["@alice"], ["@:example.org"], ["@a:b\n"]]),
        ),
        case(
            "/spec/rooms",
            "deny and only cannot be used together",
            json!([{}, {"deny": ["!a:b"]}, {"only": ["!a:b"]}, {"deny": [], "only": ["!a:b"]}]),
            json!([{"deny": ["!a:b"], "only": ["!c:d"]}]),
        ),
        case(
            "/spec/rooms/creatorPattern",
            "creatorPattern must be a regular expression",
            json!(["^@bridge_.*:example[.]org$", "."]),
            json!(["(", "[a", "a{2,1}"]),
        ),
        case(
            "/spec/rooms/minimumLastActive",
            "minimumLastActive must be a whole number",
            json!(["90d", "1s", "12h", "99999m"]),
            json!(["90", "d", "0d", "-1d", "1.5h", "1w", "90 d", "1h30m"]),
        ),
    ]
}

fn database_and_worker() -> Vec<Case> {
    vec![
        secret_names("/spec/database/secretRef/name"),
        secret_names("/spec/database/writer/secretRef/name"),
        case(
            "/spec/database/schema",
            "schema must be a Postgres schema of the bot's own",
            json!(["auditbot", "_a1", "public2"]),
            json!([
                "public",
                "pg_catalog",
                "pg_",
                "information_schema",
                "Audit",
                "1a",
                "a-b",
                "a\"; drop table x"
            ]),
        ),
        case(
            "/spec/elementWeb/host",
            "host must be a host name",
            json!(["app.element.io", "localhost:8080"]),
            json!(["https://app.element.io", "app.element.io/x", "App.element.io", "a@b"]),
        ),
        case(
            "/spec/elementWeb/path",
            "path must begin with a slash",
            json!(["/", "/element/"]),
            json!(["element", "/../x", "//evil.example", "/?x=y"]),
        ),
        quantities("/spec/worker/storage/size", "size must be a quantity above zero"),
        quantities("/spec/worker/resources/requests/cpu", "cpu must be a quantity above zero"),
        quantities("/spec/worker/resources/limits/memory", "memory must be a quantity above zero"),
        urls("/spec/worker/proxy/url", "url must be an http"),
    ]
}

fn server(length: usize) -> Value {
    json!({"serverName": "a".repeat(length), "url": "http://a", "plan": "Platinum"})
}

/// Cases for Audit Bots.
fn audit() -> Vec<Case> {
    vec![
        case(
            "/spec/retention",
            "keepForDays cannot be below minimumDays",
            json!([{}, {"keepForDays": 1}, {"minimumDays": 30}, {"keepForDays": 30, "minimumDays": 30},
                {"minimumDays": 30, "categories": [{"category": "AccessEvent", "keepForDays": 31}]}]),
            json!([{"keepForDays": 29, "minimumDays": 30},
                {"minimumDays": 30, "categories": [{"category": "AccessEvent", "keepForDays": 29}]}]),
        ),
        quantities("/spec/media/maximumSize", "maximumSize must be a quantity above zero"),
        case(
            "/spec/search/language",
            "language must be the name of a text search configuration",
            json!(["simple", "english"]),
            json!(["English", "a'b", "a.b"]),
        ),
        case(
            "/spec/policies",
            "name must have lower-case letters",
            json!([[{"name": "no-secrets", "match": {"text": "password"}}]]),
            json!([[{"name": "No secrets", "match": {"text": "password"}}]]),
        ),
        case(
            "/spec/policies",
            "match must have at least one of",
            json!([[{"name": "a", "match": {"categories": ["AccessEvent"]}}]]),
            json!([[{"name": "a", "match": {}}]]),
        ),
        case(
            "/spec/policies",
            "actions must list names of actions",
            json!([[{"name": "a", "match": {"actions": ["room.member.joined", "room.member."]}}]]),
            json!([[{"name": "a", "match": {"actions": ["room.*"]}}]]),
        ),
        case(
            "/spec/policies",
            "actors must list full user IDs",
            json!([[{"name": "a", "match": {"actors": ["@alice:example.org"]}}]]),
            json!([[{"name": "a", "match": {"actors": ["alice"]}}]]),
        ),
        case(
            "/spec/policies",
            "rooms must list room IDs",
            json!([[{"name": "a", "match": {"rooms": ["!a:b"]}}]]),
            json!([[{"name": "a", "match": {"rooms": ["#a:b"]}}]]),
        ),
        case(
            "/spec/policies",
            "text must be a regular expression",
            json!([[{"name": "a", "match": {"text": "(?i)iban"}}]]),
            json!([[{"name": "a", "match": {"text": "("}}]]),
        ),
    ]
}

fn cases(kind: BotKind) -> Vec<Case> {
    let mut cases = common();
    if kind == BotKind::Audit {
        cases.extend(audit());
    }
    cases
}

#[test]
fn the_smallest_object_is_accepted() {
    for kind in KINDS {
        assert_eq!(refusals(kind, &minimal(kind), None), Vec::<String>::new());
    }
}

#[test]
fn good_values_are_accepted_and_bad_ones_refused_with_the_sentence() {
    for kind in KINDS {
        for Case { pointer, sentence, accepted, refused } in cases(kind) {
            let complain = |value: &Value| {
                let mut found = refusals(kind, &with(context(kind, pointer), pointer, value.clone()), None);
                found.retain(|message| message.starts_with(sentence));
                found
            };
            for value in accepted {
                assert!(
                    complain(&value).is_empty(),
                    "{kind}: {pointer}: {value} was refused: {:?}",
                    complain(&value)
                );
            }
            for value in refused {
                assert!(
                    !complain(&value).is_empty(),
                    "{kind}: {pointer}: {value} was not refused with {sentence:?}"
                );
            }
        }
    }
}

/// The smallest object, with what a field's neighbours must have.
fn context(kind: BotKind, pointer: &str) -> Value {
    if pointer.contains("/mas/") {
        with(minimal(kind), "/spec/homeserver/adminApi/mas/clientSecret", json!({"name": "a", "key": "b"}))
    } else {
        minimal(kind)
    }
}

#[test]
fn every_rule_has_a_test() {
    for kind in KINDS {
        let tested: BTreeSet<&str> = cases(kind)
            .iter()
            .map(|case| case.sentence)
            .chain(transitions::SENTENCES.iter().copied())
            .collect();
        for (rule, message) in rules_of(kind) {
            assert!(!message.is_empty(), "{kind}: rule without a sentence: {rule}");
            assert!(
                tested.iter().any(|sentence| message.starts_with(sentence)),
                "{kind}: no test for {message:?} ({rule})"
            );
        }
    }
}
