//! Every rule about a change: what may change and what may not.

use serde_json::{Value, json};

use super::{KINDS, minimal, refusals, with};
use crate::domain::BotKind;

/// Beginnings of the sentences that are tested here.
pub(super) const SENTENCES: &[&str] = &[
    "serverName cannot be changed",
    "username cannot be changed",
    "schema cannot be added, changed or removed later",
    "storageClassName cannot be added, changed or removed later",
    "size can be raised, not lowered",
    "status.trail cannot be removed",
    "status.trail cannot shrink, go back to an earlier epoch, or change its root hash",
    "minimumDays can be raised, not lowered or removed",
];

fn change(kind: BotKind, pointer: &str, before: Value, after: Value) -> Vec<String> {
    refusals(kind, &with(minimal(kind), pointer, after), Some(&with(minimal(kind), pointer, before)))
}

fn accepted(kind: BotKind, pointer: &str, before: Value, after: Value) {
    let found = change(kind, pointer, before, after);
    assert!(found.is_empty(), "{kind}: {pointer}: {found:?}");
}

fn refused(kind: BotKind, pointer: &str, before: Value, after: Value, sentence: &str) {
    assert!(SENTENCES.contains(&sentence), "{sentence}");
    let found = change(kind, pointer, before, after);
    assert!(found.iter().any(|message| message.starts_with(sentence)), "{kind}: {pointer}: {found:?}");
}

#[test]
fn what_identifies_a_bot_never_changes() {
    for kind in KINDS {
        let server = "/spec/homeserver/serverName";
        accepted(kind, server, json!("example.org"), json!("example.org"));
        refused(kind, server, json!("example.org"), json!("example.com"), SENTENCES[0]);

        let username = "/spec/username";
        accepted(kind, username, json!("bot"), json!("bot"));
        accepted(kind, username, json!(null), json!(kind.slug()));
        refused(kind, username, json!("bot"), json!("robot"), SENTENCES[1]);
        refused(kind, username, json!("bot"), json!(null), SENTENCES[1]);
        refused(kind, username, json!(null), json!("bot"), SENTENCES[1]);
    }
}

#[test]
fn optional_immutable_fields_neither_come_nor_go() {
    for kind in KINDS {
        for (pointer, sentence) in
            [("/spec/database/schema", SENTENCES[2]), ("/spec/worker/storage/storageClassName", SENTENCES[3])]
        {
            accepted(kind, pointer, json!("fast"), json!("fast"));
            accepted(kind, pointer, json!(null), json!(null));
            refused(kind, pointer, json!("fast"), json!("slow"), sentence);
            refused(kind, pointer, json!("fast"), json!(null), sentence);
            refused(kind, pointer, json!(null), json!("slow"), sentence);
        }
    }
}

#[test]
fn leaving_out_the_parent_of_an_immutable_field_does_not_remove_it() {
    for kind in KINDS {
        refused(kind, "/spec/database", json!({"schema": "mine"}), json!(null), SENTENCES[2]);
        refused(kind, "/spec/database", json!(null), json!({"schema": "mine"}), SENTENCES[2]);
        refused(
            kind,
            "/spec/worker",
            json!({"storage": {"storageClassName": "fast"}}),
            json!(null),
            SENTENCES[3],
        );
        refused(kind, "/spec/worker", json!({"storage": {"size": "2Gi"}}), json!(null), SENTENCES[4]);
        accepted(kind, "/spec/database", json!(null), json!({}));
    }
}

#[test]
fn a_volume_grows_only() {
    for kind in KINDS {
        let size = "/spec/worker/storage/size";
        accepted(kind, size, json!("1Gi"), json!("1Gi"));
        accepted(kind, size, json!("1Gi"), json!("1025Mi"));
        refused(kind, size, json!("1Gi"), json!("1023Mi"), SENTENCES[4]);
        refused(kind, size, json!("2Gi"), json!(null), SENTENCES[4]);
    }
}

#[test]
fn minimum_retention_grows_only() {
    let minimum = "/spec/retention/minimumDays";
    accepted(BotKind::Audit, minimum, json!(30), json!(31));
    accepted(BotKind::Audit, minimum, json!(null), json!(31));
    refused(BotKind::Audit, minimum, json!(30), json!(29), SENTENCES[7]);
    refused(BotKind::Audit, minimum, json!(30), json!(null), SENTENCES[7]);
    refused(BotKind::Audit, "/spec/retention", json!({"minimumDays": 30}), json!(null), SENTENCES[7]);
}

fn trail(epoch: i64, size: i64, digit: char) -> Value {
    json!({"epoch": epoch, "size": size, "rootHash": digit.to_string().repeat(64)})
}

#[test]
fn a_trail_grows_within_an_epoch_and_epochs_grow() {
    for kind in KINDS {
        let pointer = "/status/trail";
        accepted(kind, pointer, json!(null), trail(1, 0, 'a'));
        accepted(kind, pointer, trail(1, 5, 'a'), trail(1, 5, 'a'));
        accepted(kind, pointer, trail(1, 5, 'a'), trail(1, 6, 'b'));
        accepted(kind, pointer, trail(1, 5, 'a'), trail(2, 3, 'c'));
        refused(kind, pointer, trail(1, 5, 'a'), trail(1, 4, 'b'), SENTENCES[6]);
        refused(kind, pointer, trail(1, 5, 'a'), trail(1, 5, 'b'), SENTENCES[6]);
        refused(kind, pointer, trail(2, 5, 'a'), trail(1, 9, 'b'), SENTENCES[6]);
    }
}

#[test]
fn a_reported_trail_cannot_be_taken_back() {
    for kind in KINDS {
        refused(kind, "/status/trail", trail(1, 5, 'a'), json!(null), SENTENCES[5]);
        refused(kind, "/status", json!({"trail": trail(1, 5, 'a')}), json!(null), SENTENCES[5]);
        accepted(kind, "/status", json!({"userID": "@a:b"}), json!({}));
        accepted(kind, "/status", json!(null), json!({"trail": trail(1, 5, 'a')}));
    }
}
