#![expect(clippy::needless_pass_by_value, reason = "values are written in place")]

mod calls;
mod edges;
mod messages;
mod rooms;
mod states;

use serde_json::{Value, json};

use super::*;
use crate::{
    domain::record::{Category, Change, Occurred, Relation},
    worker::vocabulary,
};

const ALICE: &str = "@alice:example.org";
const BOB: &str = "@bob:example.org";
const BOT: &str = "@auditbot:example.org";

fn event(kind: &str, content: Value) -> Value {
    json!({"event_id": "$e", "sender": ALICE, "type": kind, "origin_server_ts": 1_790_000_000_000_i64, "content": content})
}

fn state(kind: &str, key: &str, content: Value, before: Option<Value>) -> Value {
    let mut event = event(kind, content);
    event["state_key"] = key.into();
    if let Some(before) = before {
        event["unsigned"] = json!({"prev_content": before});
    }
    event
}

fn record_with(event: &Value, earlier: Option<&Earlier>) -> RecordDraft {
    let raw = event.to_string();
    let record =
        convert(&Input { room_id: "!r", raw: &raw, encryption: Encryption::None, caused_by: None }, earlier);
    is_of_the_vocabulary(&record);
    record
}

/// Whatever becomes of an event, it is a record that the document explains.
pub(super) fn is_of_the_vocabulary(record: &RecordDraft) {
    let is_known =
        |verb: &vocabulary::Verb| (verb.category, verb.action) == (record.category, &*record.action);
    assert!(vocabulary::all().iter().any(|(_, verb)| is_known(verb)), "{record:?}");
    for Relation { kind, id, role } in &record.relations {
        assert!(vocabulary::RELATIONS.contains(&(kind.as_str(), role.as_str())), "{kind} {id} {role}");
    }
}

/// What has to be looked up before an event is converted.
fn need(event: &Value) -> Option<Need> {
    let raw = event.to_string();
    needs(&Input { room_id: "!r", raw: &raw, encryption: Encryption::None, caused_by: None })
}

/// What the event with this identifier said last.
fn newest(of: &str) -> Option<Need> {
    Some(Need::Newest { of: of.to_owned(), at: Occurred::At(1_790_000_000_000) })
}

fn record(event: &Value) -> RecordDraft {
    record_with(event, None)
}

fn earlier(event: &Value) -> Earlier {
    Earlier::Record(Box::new(record(event)))
}

fn has(record: &RecordDraft, kind: &str, id: &str, role: &str) -> bool {
    record.relations.contains(&Relation::new(kind, id, role))
}

fn change(record: &RecordDraft, path: &str) -> Change {
    record.changes.iter().find(|change| change.path == path).cloned().unwrap_or_else(|| {
        panic!("no change of {path} in {:?}", record.changes);
    })
}

fn subject_of(record: &RecordDraft, person: &str, role: &str) -> bool {
    record.subjects.iter().any(|subject| subject.person == person && subject.role == role)
}

#[test]
fn a_message_has_text_room_actor_and_its_own_bytes() {
    let event = event("m.room.message", json!({"msgtype": "m.text", "body": "hello"}));
    let record = record(&event);
    assert_eq!(record.source_id, "matrix:event:$e");
    assert_eq!((record.category, record.action.as_str()), (Category::UserActivity, "message.sent"));
    assert_eq!(record.actor, Actor::matrix(ALICE));
    assert_eq!(record.text.as_deref(), Some("hello"));
    assert_eq!(record.occurred, Occurred::At(1_790_000_000_000));
    assert_eq!(record.source_raw, Some(event.to_string()));
    assert_eq!(record.trust, Trust::Plain);
    assert!(has(&record, "room", "!r", "in") && has(&record, "event", "$e", "self"));
    assert!(subject_of(&record, ALICE, "actor"));
}

#[test]
fn a_reply_loses_its_fallback_and_names_what_it_answers() {
    let record = record(&event(
        "m.room.message",
        json!({"body": "> <@bob:example.org> asked\n> more\n\nyes", "m.relates_to": {"m.in_reply_to": {"event_id": "$q"}}}),
    ));
    assert_eq!(record.text.as_deref(), Some("yes"));
    assert!(has(&record, "event", "$q", "replies_to"));
}

#[test]
fn a_thread_message_is_no_reply_unless_it_says_so() {
    let relation = |fallback: bool| {
        json!({"body": "b", "m.relates_to": {"rel_type": "m.thread", "event_id": "$root",
            "is_falling_back": fallback, "m.in_reply_to": {"event_id": "$last"}}})
    };
    let implicit = record(&event("m.room.message", relation(true)));
    assert!(has(&implicit, "event", "$root", "thread") && !has(&implicit, "event", "$last", "replies_to"));
    let explicit = record(&event("m.room.message", relation(false)));
    assert!(has(&explicit, "event", "$root", "thread") && has(&explicit, "event", "$last", "replies_to"));
}

#[test]
fn media_and_mentions_are_related() {
    let record = record(&event(
        "m.room.message",
        json!({"msgtype": "m.file", "body": "caption", "filename": "plan.pdf",
            "file": {"url": "mxc://example.org/abc"}, "info": {"thumbnail_url": "mxc://example.org/thumb"},
            "m.mentions": {"user_ids": [BOB, 7]}}),
    ));
    assert_eq!(record.text.as_deref(), Some("caption\nplan.pdf"));
    assert!(has(&record, "media", "mxc://example.org/abc", "attached"));
    assert!(has(&record, "media", "mxc://example.org/thumb", "thumbnail"));
    assert!(subject_of(&record, BOB, "mentioned"));
}

fn edit_of(target: &str, body: &str) -> Value {
    let mut edit = event(
        "m.room.message",
        json!({"body": format!("* {body}"), "m.new_content": {"msgtype": "m.text", "body": body},
            "m.relates_to": {"rel_type": "m.replace", "event_id": target}}),
    );
    edit["event_id"] = "$edit".into();
    edit
}

#[test]
fn an_edit_has_before_and_after() {
    let original = event("m.room.message", json!({"msgtype": "m.text", "body": "old"}));
    let edit = edit_of("$e", "new");
    let raw = edit.to_string();
    let input = Input { room_id: "!r", raw: &raw, encryption: Encryption::None, caused_by: None };
    let at = Occurred::At(1_790_000_000_000);
    assert_eq!(needs(&input), Some(Need::Before { of: "$e".into(), at, edit: "$edit".into() }));
    let edited = record_with(&edit, Some(&earlier(&original)));
    assert_eq!(edited.action, "message.edited");
    assert_eq!(edited.text.as_deref(), Some("new"));
    assert!(has(&edited, "event", "$e", "replaces"));
    assert_eq!(
        edited.changes,
        [Change { path: "/content/body".into(), before: Some(json!("old")), after: Some(json!("new")) }]
    );
    // The second edit replaces what the first one said.
    let again = record_with(&edit_of("$e", "newer"), Some(&earlier(&edit)));
    assert_eq!(change(&again, "/content/body").before, Some(json!("new")));
}

#[test]
fn what_may_not_have_been_there_last_is_not_said_to_be_what_was_there_before() {
    let original = event("m.room.message", json!({"msgtype": "m.text", "body": "old"}));
    let perhaps = Earlier::Perhaps(Box::new(earlier(&original)));
    let edited = record_with(&edit_of("$e", "new"), Some(&perhaps));
    assert_eq!(edited.action, "message.edited");
    assert_eq!(change(&edited, "/content/body").before, None);
    // Whose it is and of which type is certain.
    let mut forged = edit_of("$e", "forged");
    forged["sender"] = BOB.into();
    assert_eq!(record_with(&forged, Some(&perhaps)).action, "message.edit_ignored");
    let redacted = record_with(&event("m.room.redaction", json!({"redacts": "$e"})), Some(&perhaps));
    assert_eq!((redacted.action.as_str(), redacted.text.as_deref()), ("message.redacted", Some("old")));
    let paths: Vec<&str> = redacted.changes.iter().map(|change| change.path.as_str()).collect();
    assert_eq!(paths, ["/known_content/body", "/known_content/msgtype"]);
    // Nobody edits state.
    let topic = Earlier::Perhaps(Box::new(earlier(&state("m.room.topic", "", json!({"topic": "t"}), None))));
    let redacted = record_with(&event("m.room.redaction", json!({"redacts": "$e"})), Some(&topic));
    assert_eq!(change(&redacted, "/content/topic").before, Some(json!("t")));
}

#[test]
fn a_ciphertext_is_not_what_a_message_said() {
    let cipher = event("m.room.encrypted", json!({"algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "x"}));
    let edited = record_with(&edit_of("$e", "new"), Some(&Earlier::Event(cipher.clone())));
    let befores: Vec<_> = edited.changes.iter().filter(|change| change.before.is_some()).collect();
    assert!(befores.is_empty(), "{befores:?}");
    // Nor is anything asked about what cannot be read itself.
    let mut edit = cipher;
    edit["content"]["m.relates_to"] = json!({"rel_type": "m.replace", "event_id": "$o"});
    let raw = edit.to_string();
    let encryption = Encryption::Failed("missing_key");
    assert_eq!(needs(&Input { room_id: "!r", raw: &raw, encryption, caused_by: None }), None);
}

#[test]
fn a_decrypted_edit_finds_its_relation_beside_the_ciphertext() {
    let mut cipher = event(
        "m.room.encrypted",
        json!({"ciphertext": "x", "m.relates_to": {"rel_type": "m.replace", "event_id": "$o"}}),
    );
    cipher["event_id"] = "$edit".into();
    let mut plain = edit_of("$o", "new");
    plain["content"].as_object_mut().unwrap().remove("m.relates_to");
    let (cipher, plain) = (cipher.to_string(), plain.to_string());
    let plaintext = Plaintext {
        raw: &plain,
        trust: Trust::VerifiedDevice,
        device_id: Some("DEV"),
        session_id: Some("s"),
    };
    let input = Input {
        room_id: "!r",
        raw: &cipher,
        encryption: Encryption::Decrypted(plaintext.clone()),
        caused_by: None,
    };
    let record = convert(&input, None);
    assert_eq!(record.action, "message.edited");
    assert_eq!(record.source_raw.as_deref(), Some(cipher.as_str()));
    assert_eq!(record.plaintext_raw.as_deref(), Some(plain.as_str()));
    assert_eq!(record.trust, Trust::VerifiedDevice);
    assert_eq!(record.context.device_id.as_deref(), Some("DEV"));
    let later = Input { encryption: Encryption::DecryptedLater(plaintext), ..input };
    let record = convert(&later, None);
    assert_eq!(record.source_id, "matrix:plaintext:$edit");
    assert!(has(&record, "event", "$edit", "plaintext_of"));
}

#[test]
fn what_cannot_be_decrypted_is_a_record_with_its_reason() {
    let raw = event("m.room.encrypted", json!({"ciphertext": "x"})).to_string();
    let record = convert(
        &Input { room_id: "!r", raw: &raw, encryption: Encryption::Failed("missing_key"), caused_by: None },
        None,
    );
    assert_eq!(record.action, "message.undecryptable");
    assert_eq!(record.undecryptable_reason.as_deref(), Some("missing_key"));
    assert_eq!((record.trust, record.text), (Trust::Undecryptable, None));
}

#[test]
fn a_reaction_and_its_removal_mirror_each_other() {
    let relation = json!({"m.relates_to": {"rel_type": "m.annotation", "event_id": "$m", "key": "👍"}});
    let reaction = event("m.reaction", relation);
    let added = record(&reaction);
    assert_eq!(added.action, "reaction.added");
    assert!(has(&added, "event", "$m", "reacts_to"));
    let path = "/reactions/👍/@alice:example.org";
    assert_eq!(change(&added, path).after, Some(json!(true)));
    let taking_back = event("m.room.redaction", json!({"redacts": "$e"}));
    let removed = record_with(&taking_back, Some(&earlier(&reaction)));
    assert_eq!(removed.action, "reaction.removed");
    assert!(has(&removed, "event", "$e", "redacts") && has(&removed, "event", "$m", "reacts_to"));
    assert_eq!(change(&removed, path).before, Some(json!(true)));
    assert_eq!(change(&removed, path).after, None);
}

#[test]
fn a_redaction_keeps_what_was_taken_away() {
    let mut original = event("m.room.message", json!({"msgtype": "m.text", "body": "secret"}));
    original["sender"] = BOB.into();
    for (version, redaction) in [
        ("11", event("m.room.redaction", json!({"redacts": "$e", "reason": "spam"}))),
        ("10", {
            let mut old = event("m.room.redaction", json!({"reason": "spam"}));
            old["redacts"] = "$e".into();
            old
        }),
    ] {
        let record = record_with(&redaction, Some(&earlier(&original)));
        assert_eq!(record.action, "message.redacted", "room version {version}");
        assert_eq!(record.context.reason.as_deref(), Some("spam"));
        assert_eq!(change(&record, "/content/body").before, Some(json!("secret")));
        assert_eq!(change(&record, "/content/body").after, None);
        assert!(subject_of(&record, BOB, "author") && has(&record, "event", "$e", "redacts"));
    }
}

#[test]
fn an_act_of_the_bot_has_the_bot_as_actor() {
    let raw = state("m.room.member", BOT, json!({"membership": "invite"}), None).to_string();
    let input = Input { room_id: "!r", raw: &raw, encryption: Encryption::None, caused_by: Some(BOT) };
    let record = convert(&input, None);
    assert_eq!(record.actor, Actor::matrix(BOT));
    assert_eq!(record.on_behalf_of.as_deref(), Some(ALICE));
    assert!(subject_of(&record, ALICE, "on_behalf_of") && !subject_of(&record, ALICE, "actor"));
}
