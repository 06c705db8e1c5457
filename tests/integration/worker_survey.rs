//! What the admin API shows becomes records of what changed, once, whatever restarts.

use std::sync::Arc;

use ems_bots::{
    domain::{
        RoomId, ServerName, UserId,
        record::{Actor, Occurred, RecordDraft, Relation},
    },
    homeserver::{
        History, HomeserverError, MediaUpload, ModuleFacts, QuarantineChange, Report, mock::RoomKind,
    },
};
use serde_json::{json, value::RawValue};

use crate::{
    matrix_fake::{Fault, USER},
    survey_stage::{
        ALICE, BOB, CAROL, account, actions, looked, recording_says, report, seen, session, show, stage,
        upload,
    },
    worker_ignored::LeftOut,
    worker_scene::in_time,
    worker_stage::{message, sync, text, until},
};

#[tokio::test(flavor = "multi_thread")]
async fn accounts_and_sessions_are_compared_with_what_they_were() {
    in_time(async {
        let (stage, shown) = stage().await;
        show(&shown, |seen| {
            for (user, device) in [(ALICE, "A1"), (BOB, "B1"), (CAROL, "C1")] {
                seen.accounts
                    .push(account(user, &json!({"admin": false, "locked": false, "displayname": user})));
                seen.details.insert(user.into(), json!({"suspended": false}).as_object().unwrap().clone());
                seen.sessions.insert(user.into(), vec![session(device, "192.0.2.1")]);
            }
        });
        let running = stage.start(None);
        recording_says(&running, "accounts: on").await;
        let found = seen(&stage, &["account.", "session."]).await;
        let expected = [
            ("account.found", "alice"),
            ("account.found", "bob"),
            ("account.found", "carol"),
            ("session.found", "alice"),
            ("session.found", "bob"),
            ("session.found", "carol"),
        ];
        assert_eq!(actions(&found), expected);
        running.stop().await.unwrap();

        // While nobody looks.
        show(&shown, |seen| {
            seen.accounts[0].facts.insert("admin".into(), true.into());
            seen.accounts[1].last_seen_ms = Some(2);
            seen.details.insert(BOB.into(), json!({"suspended": true}).as_object().unwrap().clone());
            seen.sessions.insert(BOB.into(), vec![session("B1", "198.51.100.7"), session("B2", "192.0.2.9")]);
            seen.accounts[2].last_seen_ms = Some(2);
            seen.sessions.insert(CAROL.into(), Vec::new());
            seen.accounts.push(account("@dora:example.org", &json!({"admin": false})));
            seen.sessions.insert("@dora:example.org".into(), vec![session("D1", "192.0.2.2")]);
        });
        let running = stage.start(None);
        looked(&shown).await;
        running.stop().await.unwrap();
        let all = seen(&stage, &["account.", "session."]).await;
        let since = &all[found.len()..];
        let expected = [
            ("account.admin_granted", "alice"),
            ("account.registered", ""),
            ("account.suspended", "bob"),
            ("session.address_changed", "bob"),
            ("session.ended", "carol"),
            ("session.started", ""),
            ("session.started", "bob"),
        ];
        assert_eq!(actions(since), expected);
        let of = |action: &str| since.iter().find(|record| record.action == action).unwrap();
        let granted = of("account.admin_granted");
        assert_eq!(granted.actor, Actor::Unknown);
        assert!(matches!(granted.occurred, Occurred::Between(from, to) if from < to), "{granted:?}");
        let change = &granted.changes[0];
        assert_eq!(
            (change.path.as_str(), &change.before, &change.after),
            ("/account/admin", &Some(json!(false)), &Some(json!(true)))
        );
        assert_eq!(of("account.registered").occurred, Occurred::At(1_780_000_000_000));
        let moved = of("session.address_changed");
        assert_eq!(
            (moved.context.device_id.as_deref(), moved.context.ip.as_deref()),
            (Some("B1"), Some("198.51.100.7"))
        );

        let running = stage.start(None);
        looked(&shown).await;
        running.stop().await.unwrap();
        assert_eq!(seen(&stage, &["account.", "session."]).await.len(), all.len(), "nothing twice");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_quarantine_and_reports_are_recorded_once() {
    in_time(async {
        let (stage, shown) = stage().await;
        let future = 4_000_000_000_000;
        show(&shown, |seen| {
            seen.uploads.insert(ALICE.into(), vec![upload("old", 1_000)]);
            seen.event_reports = vec![report(3, ALICE), report(2, ALICE), report(1, CAROL)];
        });
        let running = stage.start(None);
        recording_says(&running, "reports: on").await;
        recording_says(&running, "media: on").await;
        running.stop().await.unwrap();
        show(&shown, |seen| {
            let new: Vec<_> =
                (0..5).rev().map(|number| upload(&format!("m{number}"), future + number)).collect();
            let preview = MediaUpload { is_preview: true, ..upload("preview", future + 9) };
            let old = upload("old", 1_000);
            seen.uploads.insert(ALICE.into(), [preview].into_iter().chain(new).chain([old]).collect());
            let change = |media: &str, quarantined| QuarantineChange {
                origin: "example.org".into(),
                media: media.into(),
                quarantined,
            };
            seen.quarantine = vec![change("m1", true), change("m2", true), change("m1", false)];
            // Somebody deleted report 3, and the homeserver gave its number out again.
            seen.event_reports[0] = Report { received_ms: Some(future), ..report(3, BOB) };
            seen.user_reports = vec![report(1, CAROL)];
        });
        for _ in 0..2 {
            let running = stage.start(None);
            looked(&shown).await;
            running.stop().await.unwrap();
        }
        let records = seen(&stage, &["media.", "report."]).await;
        let expected = [
            ("media.quarantine_lifted", ""),
            ("media.quarantined", ""),
            ("media.quarantined", ""),
            ("media.uploaded", "alice"),
            ("media.uploaded", "alice"),
            ("media.uploaded", "alice"),
            ("media.uploaded", "alice"),
            ("media.uploaded", "alice"),
            ("report.event_filed", "alice"),
            ("report.event_filed", "alice"),
            ("report.event_filed", "bob"),
            ("report.event_filed", "carol"),
            ("report.user_filed", "carol"),
        ];
        assert_eq!(actions(&records), expected);
        let newest = records.iter().find(|record| record.text.as_deref() == Some("m4.png")).unwrap();
        assert_eq!((&newest.actor, newest.occurred), (&Actor::matrix(ALICE), Occurred::At(future + 4)));
        assert!(newest.relations.contains(&Relation::new("media", "mxc://example.org/m4", "target")));
        let filed = records.iter().find(|record| record.action == "report.user_filed").unwrap();
        assert_eq!(filed.context.reason.as_deref(), Some("rude"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_homeserver_is_compared_with_what_it_was() {
    in_time(async {
        let (stage, shown) = stage().await;
        show(&shown, |seen| seen.server.version = "1.1".into());
        let running = stage.start(None);
        recording_says(&running, "homeserver: on").await;
        running.stop().await.unwrap();
        show(&shown, |seen| seen.server.version = "1.2".into());
        let running = stage.start(None);
        looked(&shown).await;
        running.stop().await.unwrap();
        let records = seen(&stage, &["homeserver."]).await;
        assert_eq!(actions(&records), [("homeserver.found", ""), ("homeserver.version_changed", "")]);
        let change = &records[1].changes[0];
        assert_eq!((&change.before, &change.after), (&Some(json!("1.1")), &Some(json!("1.2"))));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_that_is_gone_was_deleted() {
    in_time(async {
        let (stage, shown) = stage().await;
        let running = stage.start(None);
        let bot = "auditbot".parse().unwrap();
        let bot = UserId::from_parts(&bot, &ServerName::parse("example.org").unwrap());
        let room = running.homeserver.create_room(&bot, "11", RoomKind::Private);
        until("the room is known", || {
            let known = running.homeserver.count("joined_rooms") > 3;
            if known { Ok(()) } else { Err(()) }
        })
        .await;
        running.homeserver.world().rooms.remove(&room);
        let (calls, homeserver) = (running.homeserver.count("joined_rooms"), running.homeserver.clone());
        until("it is looked at again", || {
            if homeserver.count("joined_rooms") > calls + 2 { Ok(()) } else { Err(()) }
        })
        .await;
        running.stop().await.unwrap();
        let records = seen(&stage, &["room.deleted"]).await;
        assert_eq!(records.len(), 1);
        assert!(records[0].relations.contains(&Relation::new("room", room.as_str(), "in")));
        drop(shown);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_recorded_of_rooms_that_are_left_out_or_that_the_bot_is_not_in() {
    in_time(async {
        let (mut stage, shown) = stage().await;
        let left_out = Arc::new(LeftOut::default());
        stage.presence = left_out.clone();
        let running = stage.start(None);
        let homeserver = running.homeserver.clone();
        let bot = UserId::parse("@auditbot:example.org").unwrap();
        let alice = homeserver.add_user(&"alice".parse().unwrap(), false).user_id;
        let room = |creator: &UserId| homeserver.create_room(creator, "11", RoomKind::Private);
        let (recorded, ignored, other) = (room(&bot), room(&bot), room(&alice));
        let looks = async || {
            let before = homeserver.count("joined_rooms");
            until("it is looked at", || {
                if homeserver.count("joined_rooms") > before + 6 { Ok(()) } else { Err(()) }
            })
            .await;
        };
        // It was recorded once.
        looks().await;
        left_out.0.lock().unwrap().insert(ignored.clone());
        looks().await;
        show(&shown, |seen| {
            let about = |id, room: &RoomId| Report { room: Some(room.to_string()), ..report(id, ALICE) };
            seen.event_reports = vec![about(3, &recorded), about(2, &ignored), about(1, &other)];
        });
        looked(&shown).await;
        for room in [&recorded, &ignored, &other] {
            homeserver.world().rooms.remove(room);
        }
        left_out.0.lock().unwrap().clear();
        looks().await;
        running.stop().await.unwrap();
        let records = seen(&stage, &["room.deleted", "report."]).await;
        let about: Vec<_> = records
            .iter()
            .map(|record| {
                (record.action.as_str(), record.relations.iter().find(|of| of.kind == "room").unwrap())
            })
            .map(|(action, room)| (action, room.id.as_str()))
            .collect();
        let expected = ["report.event_filed", "room.deleted"].map(|action| (action, recorded.as_str()));
        assert_eq!(about, expected);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_of_any_age_are_recorded_once_the_bot_is_in_their_room() {
    in_time(async {
        let (mut stage, shown) = stage().await;
        let left_out = Arc::new(LeftOut::default());
        stage.presence = left_out.clone();
        let down = || HomeserverError::Server { status: 502, what: "the reports" };
        shown.fail_always("event_reports", down);
        let running = stage.start(None);
        let bot = UserId::parse("@auditbot:example.org").unwrap();
        let room = || running.homeserver.create_room(&bot, "11", RoomKind::Private);
        let (recorded, later, never) = (room(), room(), room());
        left_out.0.lock().unwrap().extend([later.clone(), never.clone()]);
        show(&shown, |seen| {
            // Of another age than the newest, and behind whole pages of what is not recorded.
            let rooms = [&never, &never, &never, &later, &never, &never, &recorded];
            let about = |(age, room): (i64, &&RoomId)| Report {
                room: Some(room.to_string()),
                received_ms: Some(1_000 - age),
                ..report(7 - age, ALICE)
            };
            seen.event_reports = (0..).zip(&rooms).map(about).collect();
        });
        shown.heal();
        looked(&shown).await;
        let rooms = async || -> Vec<String> {
            let records = seen(&stage, &["report."]).await;
            let of_room =
                |record: &RecordDraft| record.relations.iter().find(|of| of.kind == "room").cloned();
            records.iter().filter_map(of_room).map(|room| room.id).collect()
        };
        assert_eq!(rooms().await, [recorded.to_string()]);
        left_out.0.lock().unwrap().remove(&later);
        looked(&shown).await;
        let (asked, looks) = (shown.count("event_reports"), shown.count("user_reports"));
        assert_eq!(rooms().await, [recorded.to_string(), later.to_string()]);
        looked(&shown).await;
        let (asked, looks) = (shown.count("event_reports") - asked, shown.count("user_reports") - looks);
        assert!(asked < 2 * looks, "{asked} pages in {looks} looks at what is known");
        running.stop().await.unwrap();
        assert_eq!(rooms().await.len(), 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_lags_or_is_not_offered_is_named_and_recorded() {
    in_time(async {
        let (stage, shown) = stage().await;
        shown.fail_always("quarantine", || HomeserverError::NotOffered { what: "the quarantine" });
        let running = stage.start(None);
        recording_says(&running, "quarantine: off: this homeserver does not offer").await;
        recording_says(&running, "accounts: on").await;
        recording_says(&running, "; rooms: on").await;
        shown.fail_always("accounts", || HomeserverError::Server { status: 502, what: "the list" });
        recording_says(&running, "accounts: lagging: homeserver answered 502").await;
        assert_eq!(running.board.get().recording.ok, Some(true), "rooms are recorded all the same");
        let switched = |standing: &'static str| {
            let stage = &stage;
            async move {
                let records = seen(stage, &["capture.source_switched"]).await;
                let of = |record: &&RecordDraft| record.changes[0].path == "/sources/accounts";
                records.iter().filter(of).any(|record| record.changes[0].after == Some(json!(standing)))
            }
        };
        while !switched("lagging").await {
            tokio::task::yield_now().await;
        }
        shown.heal();
        recording_says(&running, "accounts: on").await;
        running.stop().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_a_session_lags_as_long_as_there_is_none() {
    in_time(async {
        let (stage, shown) = stage().await;
        let offered = || HomeserverError::NotOffered { what: "the quarantine" };
        shown.fail_always("quarantine", offered);
        let running = stage.start(None);
        recording_says(&running, "accounts: on").await;
        recording_says(&running, "quarantine: off: this homeserver").await;
        let switched = async |standing: &str| {
            let records = seen(&stage, &["capture.source_switched"]).await;
            let to = |record: &&RecordDraft| record.changes[0].after == Some(json!(standing));
            let paths = records.iter().filter(to).map(|record| record.changes[0].path.clone());
            paths.collect::<Vec<_>>()
        };
        while !(switched("on").await.contains(&"/sources/accounts".to_owned())
            && switched("off").await.contains(&"/sources/quarantine".to_owned()))
        {
            tokio::task::yield_now().await;
        }
        running.stop().await.unwrap();
        let on = "account/whoami".to_owned();
        let away = Fault { on, times: u32::MAX, status: 502, body: "<html>", carried_out: false };
        stage.scene.fake.world().faults = vec![away];
        let running = stage.start(None);
        recording_says(&running, "accounts: lagging: nobody has looked since the worker started").await;
        recording_says(&running, "quarantine: off: this homeserver").await;
        while !switched("lagging").await.contains(&"/sources/accounts".to_owned()) {
            tokio::task::yield_now().await;
        }
        stage.scene.fake.world().faults.clear();
        recording_says(&running, "accounts: on").await;
        running.stop().await.unwrap();
        let off = switched("off").await;
        let quarantine = off.iter().filter(|path| *path == "/sources/quarantine");
        assert_eq!(quarantine.count(), 1, "what was off is off, and no switch: {off:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn history_is_read_as_an_administrator_where_the_bot_may_not() {
    in_time(async {
        let (stage, shown) = stage().await;
        let raw = |id: &str, body: &str| {
            RawValue::from_string(message(id, text(body)).to_string()).expect("a message is JSON")
        };
        {
            let mut world = stage.scene.fake.world();
            world.syncs.insert(String::new(), sync("s1", &[message("$3", text("three"))], Some("p2")));
        }
        show(&shown, |seen| {
            let end = Some("p1".to_owned());
            seen.history.insert("p2".into(), History { events: vec![raw("$2", "two")], end });
            seen.history.insert("p1".into(), History { events: vec![raw("$1", "one")], end: None });
        });
        // What stands in front of it says for a moment that there is no such thing.
        shown.fail("history", 1, || HomeserverError::NotOffered { what: "the history" });
        shown.fail("history", 3, || HomeserverError::NotOffered { what: "the history" });
        let running = stage.start(None);
        recording_says(&running, "history: on").await;
        let records = loop {
            let records = stage.room_records().await;
            if records.len() == 3 {
                break records;
            }
            tokio::task::yield_now().await;
        };
        running.stop().await.unwrap();
        let texts: Vec<&str> = records.iter().filter_map(|record| record[2].as_str()).collect();
        assert_eq!(texts, ["three", "two", "one"]);
        let asked = stage.scene.fake.world().asked.clone();
        assert!(!asked.iter().any(|token| token.starts_with('p')), "the bot itself did not ask: {asked:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_account_or_one_kind_of_report_keeps_no_other_from_being_looked_at() {
    in_time(async {
        let (stage, shown) = stage().await;
        show(&shown, |seen| {
            seen.accounts =
                vec![account(ALICE, &json!({"admin": false})), account(BOB, &json!({"admin": false}))];
            seen.event_reports = vec![report(1, ALICE)];
        });
        let strange = || HomeserverError::Server { status: 500, what: "an account" };
        shown.fail_always("account_details", strange);
        shown.fail_always("user_reports", || HomeserverError::NotOffered { what: "the reports of users" });
        let running = stage.start(None);
        recording_says(&running, "accounts: on").await;
        recording_says(&running, "; reports: on").await;
        let off = "user reports: off: this homeserver does not offer the reports of users to its admins";
        recording_says(&running, off).await;
        let to_off = |record: &RecordDraft| {
            let change = &record.changes[0];
            change.path == "/sources/user_reports" && change.after == Some(json!("off"))
        };
        while !seen(&stage, &["capture.source_switched"]).await.iter().any(to_off) {
            tokio::task::yield_now().await;
        }
        running.stop().await.unwrap();
        let found = seen(&stage, &["account.", "report."]).await;
        let expected =
            [("account.found", "alice"), ("account.found", "bob"), ("report.event_filed", "alice")];
        assert_eq!(actions(&found), expected);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_span_goes_on_where_synapse_takes_its_page_for_the_last() {
    in_time(async {
        let (stage, shown) = stage().await;
        let raw =
            |id: &str| RawValue::from_string(message(id, text(id)).to_string()).expect("a message is JSON");
        {
            let mut world = stage.scene.fake.world();
            world.syncs.insert(String::new(), sync("s1", &[message("$known", text("known"))], None));
            world.syncs.insert("s1".into(), sync("s2", &[message("$new", text("new"))], Some("p2")));
        }
        show(&shown, |seen| {
            let page = |events: &[&str], end: Option<&str>| History {
                events: events.iter().map(|id| raw(id)).collect(),
                end: end.map(str::to_owned),
            };
            seen.history.insert("p2".into(), page(&["$known"], None));
            // The page ends where the span was received first: what follows seems to be nothing.
            seen.history.insert("p2 since s1".into(), page(&["$gap"], Some("p1")));
            seen.history.insert("p2 since s1 by 137".into(), page(&["$gap", "$late"], None));
        });
        let running = stage.start(None);
        loop {
            let records = stage.room_records().await;
            if records.len() == 4 {
                break;
            }
            tokio::task::yield_now().await;
        }
        running.stop().await.unwrap();
        let records = stage.room_records().await;
        let mut texts: Vec<&str> = records.iter().filter_map(|record| record[2].as_str()).collect();
        texts.sort_unstable();
        assert_eq!(texts, ["$gap", "$late", "known", "new"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_homeservers_module_is_compared_with_the_selection() {
    in_time(async {
        let (stage, shown) = stage().await;
        let running = stage.start(None);
        let says = async |reason: &'static str| {
            until(reason, || {
                let module = running.board.get().module;
                if module.reason == reason { Ok(()) } else { Err(module) }
            })
            .await;
        };
        says("NotLoaded").await;
        let bots = [(USER.to_owned(), json!({}))].into();
        let facts = ModuleFacts { version: "0.1.0".to_owned(), active: true, bots };
        show(&shown, |seen| seen.module = Some(facts));
        says("Active").await;
        // A change of the resource counts at once, before the next look.
        stage.instructions.send_modify(|told| told.rooms.direct_messages = false);
        says("SelectionDiffers").await;
        running.stop().await.unwrap();
    })
    .await;
}
