//! Where a bot stands in its rooms, in the database and on a terminal.

use ems_bots::{
    domain::{
        RoomId,
        room::{RestMark, RoomFilter, RoomNote, RoomState},
    },
    store::{AuditReader as _, AuditStore as _, StoreError, pg::PgStore},
};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    postgres::TestDatabase,
    store_append::{batch, message, now},
    store_cli::{code, reader, stderr},
};

fn room(name: &str) -> RoomId {
    RoomId::parse(format!("!{name}:example.org")).unwrap()
}

fn note(name: &str, state: RoomState, reason: Option<&str>) -> RoomNote {
    RoomNote {
        room_id: room(name),
        name: None,
        state,
        reason: reason.map(ToOwned::to_owned),
        since: Timestamp::from_second(1_800_000_000).unwrap(),
        is_greeted: false,
        was_functional_member: true,
        rests_as: None,
    }
}

#[tokio::test]
async fn notes_are_kept_replaced_forgotten_and_found() {
    let database = TestDatabase::migrated().await;
    let store = database.writer(1);
    store.open(None).await.unwrap();
    store.note_rooms(&[], &[]).await.unwrap();
    let mut notes = vec![
        note("a", RoomState::Covered, None),
        note("b", RoomState::Blocked, Some("banned")),
        note("c", RoomState::Blocked, Some("refused")),
    ];
    // Whoever names a room chooses any text.
    notes[0].name = Some("x\0\u{1b}[2J\u{202e}'; DROP TABLE room --".to_owned());
    store.note_rooms(&notes, &[room("never")]).await.unwrap();
    notes[0].name = Some("x \u{1b}[2J\u{202e}'; DROP TABLE room --".to_owned());
    assert_eq!(store.rooms(None, 10).await.unwrap(), notes);
    assert_eq!(store.rooms(Some(&room("a")), 1).await.unwrap(), notes[1..2]);

    let rests_as = Some(RestMark(i64::MIN));
    notes[1] = RoomNote { is_greeted: true, rests_as, ..note("b", RoomState::Covered, None) };
    store.note_rooms(&notes[1..2], &[room("c")]).await.unwrap();
    assert_eq!(store.rooms(None, 10).await.unwrap(), notes[..2]);
    store.note_rooms(&[note("c", RoomState::Excluded, Some("denied"))], &[]).await.unwrap();

    let reader = database.reader().await;
    let found = async |filter: RoomFilter| {
        let found = reader.rooms(&filter, None, 10).await.unwrap();
        found.into_iter().map(|note| note.room_id).collect::<Vec<_>>()
    };
    let all = RoomFilter::default();
    assert_eq!(
        found(RoomFilter { state: Some(RoomState::Covered), ..all.clone() }).await,
        [room("a"), room("b")]
    );
    assert_eq!(found(RoomFilter { reason: Some("denied".to_owned()), ..all.clone() }).await, [room("c")]);
    assert_eq!(found(RoomFilter { room: Some(room("b")), ..all.clone() }).await, [room("b")]);
    assert_eq!(found(RoomFilter { room: Some(room("d")), ..all }).await, []);
}

#[tokio::test]
async fn who_has_lost_the_trail_notes_no_rooms() {
    let database = TestDatabase::migrated().await;
    let (first, second) = (database.writer(1), database.writer(2));
    let write = async |store: &PgStore, state| store.note_rooms(&[note("a", state, None)], &[]).await;
    let early = write(&first, RoomState::Pending).await.unwrap_err();
    assert!(matches!(early, StoreError::LostSequencer), "{early:?}");
    first.open(None).await.unwrap();
    write(&first, RoomState::Pending).await.unwrap();
    second.open(None).await.unwrap();
    write(&second, RoomState::Covered).await.unwrap();
    let late = write(&first, RoomState::Pending).await.unwrap_err();
    assert!(matches!(late, StoreError::LostSequencer), "{late:?}");
    assert_eq!(second.rooms(None, 10).await.unwrap()[0].state, RoomState::Covered);
}

#[tokio::test]
async fn people_and_machines_ask_where_the_bot_stands() {
    let database = TestDatabase::migrated().await;
    let store = database.writer(1);
    store.open(None).await.unwrap();
    let mut covered = note("room", RoomState::Covered, None);
    covered.name = Some("Plans\u{1b}[2J\u{9b}31m\u{202e}".to_owned());
    let blocked = note("z", RoomState::Blocked, Some("no_effect"));
    let unknown = note("y", RoomState::Blocked, Some("of_a_later_version"));
    store.note_rooms(&[covered, blocked, unknown], &[]).await.unwrap();
    let mut act = message("act", "make_admin");
    act.action = "bot.act.done".to_owned();
    act.on_behalf_of = Some("@alice:example.org".to_owned());
    act.relations = vec![ems_bots::domain::record::Relation::new("room", "!room:example.org", "in")];
    store.append(&batch(vec![act]), now()).await.unwrap();

    let run = |arguments: &[&str]| reader(&database, arguments);
    let list = run(&["rooms", "list"]);
    assert_eq!(code(&list), Some(0), "{}", stderr(&list));
    let table = String::from_utf8(list.stdout).unwrap();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 4, "{table}");
    assert!(lines[0].starts_with("ROOM ") && lines[0].ends_with("NAME"), "{table}");
    assert!(lines[1].starts_with("!room:example.org ") && lines[1].contains("covered"), "{table}");
    assert!(lines[1].contains("2027-01-15 08:00:00  Plans") && !table.contains('\u{1b}'), "{table}");

    let all = String::from_utf8(run(&["rooms", "list", "--output", "json"]).stdout).unwrap();
    assert!(
        all.contains("Plans\\u001b[2J\\u009b31m\\u202e") && !all.contains(['\u{9b}', '\u{202e}']),
        "{all}"
    );
    let list = run(&["rooms", "list", "--state", "blocked", "--reason", "no_effect", "--output", "json"]);
    let line: Value = serde_json::from_slice(&list.stdout).unwrap();
    let expected = json!({"room_id": "!z:example.org", "name": null, "state": "blocked", "reason": "no_effect",
        "since": "2027-01-15T08:00:00Z"});
    assert_eq!(line, expected);
    assert_eq!(code(&run(&["rooms", "list", "--state", "lost"])), Some(2));

    let explained = |room: &str| {
        let output = run(&["rooms", "explain", room]);
        (code(&output), String::from_utf8(output.stdout.clone()).unwrap(), stderr(&output))
    };
    let (exit, text, _) = explained("!room:example.org");
    assert_eq!(exit, Some(0));
    assert!(text.contains("the bot is in the room, as an admin"), "{text}");
    assert!(text.contains("done: make_admin in the name of @alice:example.org"), "{text}");
    let machine = run(&["rooms", "explain", "!room:example.org", "--output", "json"]);
    let machine: Value = serde_json::from_slice(&machine.stdout).unwrap();
    assert_eq!(machine["acts"][0]["act"], "done: make_admin in the name of @alice:example.org", "{machine}");
    let (_, text, _) = explained("!z:example.org");
    assert!(text.contains("nothing changed: look for something that undoes it"), "{text}");
    assert!(text.contains("none is recorded"), "{text}");
    let (exit, text, _) = explained("!y:example.org");
    assert!(exit == Some(0) && text.contains("a newer version of ems-bots knows"), "{text}");
    let (exit, _, error) = explained("!other:example.org");
    assert!(exit == Some(1) && error.contains("knows no room !other:example.org"), "{error}");
}
