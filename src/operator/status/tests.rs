use serde_json::json;

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn observed(account: Check, worker_ready: bool) -> Observed {
    let worker = if worker_ready {
        WorkerState { check: Check::ok("PodReady", "ready"), migration: None, speaks: true }
    } else {
        WorkerState::waiting("Starting", "starting")
    };
    Observed {
        account,
        worker,
        paused: None,
        suspend: false,
        without_effect: Vec::new(),
        facts: Facts::default(),
    }
}

fn well() -> Check {
    Check::ok("AccountUsable", "ours")
}

fn reported(states: &[(&str, &str)]) -> BotStatus {
    let conditions: Vec<_> = states
        .iter()
        .map(|(type_, status)| {
            json!({"type": type_, "status": status, "reason": "Said", "message": "by the worker",
                "lastTransitionTime": "2026-01-01T00:00:00Z"})
        })
        .collect();
    serde_json::from_value(json!({"conditions": conditions})).unwrap()
}

fn ready_of(kind: BotKind, old: &BotStatus, observed: &Observed) -> (String, String) {
    let status = compute(kind, Some(1), Some(old), observed, at(0));
    let ready = find(&status.conditions, types::READY).unwrap().clone();
    (ready.status, ready.reason)
}

#[test]
fn ready_names_the_first_thing_that_is_not_well() {
    let all = [
        (types::ENCRYPTION, "True"),
        (types::DATABASE, "True"),
        (types::ROOMS, "True"),
        (types::RECORDING, "True"),
    ];
    let but = |type_: &str, status: &'static str| {
        let states: Vec<_> = all.iter().map(|(t, s)| (*t, if *t == type_ { status } else { *s })).collect();
        reported(&states)
    };
    let fine = observed(well(), true);
    let says = |old: &BotStatus, observed: &Observed| ready_of(BotKind::Audit, old, observed);
    let pair = |status: &str, reason: &str| (status.to_owned(), reason.to_owned());
    assert_eq!(says(&reported(&all), &fine), pair("True", "AllReady"));
    assert_eq!(says(&but(types::ROOMS, "False"), &fine), pair("False", "RoomsNotCovered"));
    assert_eq!(says(&but(types::DATABASE, "Unknown"), &fine), pair("Unknown", "DatabaseNotReady"));
    assert_eq!(says(&but(types::RECORDING, "False"), &fine), pair("False", "NotRecording"));
    assert_eq!(says(&reported(&all[..3]), &fine), pair("Unknown", "NotRecording"));
    assert_eq!(ready_of(BotKind::Admin, &reported(&all[..3]), &fine), pair("True", "AllReady"));
    let broken = observed(Check::failed("HomeserverUnreachable", "down"), true);
    assert_eq!(says(&reported(&all), &broken), pair("False", "AccountNotReady"));
    assert_eq!(says(&reported(&all), &observed(well(), false)), pair("False", "WorkerNotReady"));
    let suspended = Observed { suspend: true, ..observed(well(), true) };
    assert_eq!(says(&reported(&all), &suspended), pair("False", "Suspended"));
}

#[test]
fn the_operator_speaks_for_the_worker_only_while_that_cannot() {
    let types_of = |kind, ready| -> Vec<String> {
        let status = compute(kind, Some(1), None, &observed(well(), ready), at(0));
        status.conditions.into_iter().map(|c| c.type_).collect()
    };
    let own = ["AccountReady", "Paused", "Ready", "Suspended", "WorkerReady"];
    assert_eq!(types_of(BotKind::Audit, true), own);
    assert_eq!(types_of(BotKind::Audit, false).len(), 11);
    assert!(!types_of(BotKind::Admin, false).contains(&"Recording".to_owned()));
}

#[test]
fn what_was_reached_is_not_forgotten_when_something_fails() {
    let mut old = reported(&[]);
    old.user_id = Some("@auditbot:example.org".to_owned());
    old.login_url = Some("https://app.example.org/".to_owned());
    let status =
        compute(BotKind::Audit, Some(2), Some(&old), &observed(Check::failed("X", "x"), false), at(0));
    assert_eq!((status.user_id, status.login_url), (old.user_id.clone(), old.login_url.clone()));
    let mut gone = observed(well(), true);
    gone.facts.login_url = Some(None);
    assert_eq!(compute(BotKind::Audit, Some(2), Some(&old), &gone, at(0)).login_url, None);
}

#[test]
fn an_error_of_one_aspect_leaves_the_other_as_it_was() {
    let old = reported(&[(types::ACCOUNT, "True")]);
    let ready = WorkerState { check: Check::ok("PodReady", ""), migration: None, speaks: true };
    let (account, worker) =
        failed(Aspect::Worker, Check::failed("SecretMissing", "s"), Some(&old), ready.clone());
    assert_eq!((account.ok, worker.check.reason), (Some(true), "SecretMissing"));
    let (account, worker) = failed(Aspect::Account, Check::failed("Y", "y"), Some(&old), ready.clone());
    assert_eq!((account.reason, worker), ("Y", ready));
}

#[test]
fn a_paused_bot_keeps_what_was_said() {
    let old = reported(&[(types::ACCOUNT, "True"), (types::READY, "True"), (types::ROOMS, "True")]);
    let status = compute_paused(BotKind::Audit, Some(5), Some(&old), "Annotated", at(9));
    let said: Vec<_> = status.conditions.iter().map(|c| (c.type_.as_str(), c.status.as_str())).collect();
    assert_eq!(said, [("AccountReady", "True"), ("Paused", "True"), ("Ready", "True")]);
}

#[test]
fn a_bot_that_goes_says_what_it_waits_for() {
    let old = reported(&[(types::READY, "True"), (types::ACCOUNT, "True"), (types::RECORDING, "True")]);
    let deleting = Check::failed("Deleting", "the last record");
    let status = compute_not_ready(BotKind::Audit, Some(5), Some(&old), &deleting, at(9));
    let ready = find(&status.conditions, types::READY).unwrap();
    assert_eq!((ready.reason.as_str(), ready.message.as_str()), ("Deleting", "the last record"));
    assert!(find(&status.conditions, types::RECORDING).is_none(), "that is the worker's to say");
}

#[test]
fn fields_without_effect_are_named_whether_it_works_or_not() {
    let all =
        [types::ENCRYPTION, types::DATABASE, types::ROOMS, types::RECORDING].map(|type_| (type_, "True"));
    for (worker_ready, reason) in [(true, "AllReady"), (false, "WorkerNotReady")] {
        let mut using = observed(well(), worker_ready);
        using.without_effect = vec!["spec.database.eraser"];
        let status = compute(BotKind::Audit, Some(1), Some(&reported(&all)), &using, at(0));
        let ready = find(&status.conditions, types::READY).unwrap();
        assert_eq!(ready.reason, reason);
        let named = "; without effect in this release: spec.database.eraser";
        assert!(ready.message.ends_with(named), "{}", ready.message);
    }
}

/// The worker has a part of a condition that was said in its place; to take the rest away would
/// leave half of it.
#[test]
fn what_was_said_for_the_worker_stands_until_it_speaks() {
    let down = compute(BotKind::Audit, Some(1), None, &observed(well(), false), at(1));
    let unknown = find(&down.conditions, types::ROOMS).unwrap();
    assert_eq!((unknown.status.as_str(), unknown.reason.as_str()), ("Unknown", WORKER_NOT_READY));
    let up = compute(BotKind::Audit, Some(1), Some(&down), &observed(well(), true), at(2));
    assert_eq!(find(&up.conditions, types::ROOMS), Some(unknown), "still ours");
    let spoken = reported(&[(types::ROOMS, "True")]);
    let after = compute(BotKind::Audit, Some(1), Some(&spoken), &observed(well(), true), at(3));
    assert!(find(&after.conditions, types::ROOMS).is_none(), "the worker's own words are not ours");
}

#[test]
fn a_worker_that_runs_but_is_not_ready_speaks_for_itself() {
    let mut starting = observed(well(), false);
    starting.worker.speaks = true;
    let said = reported(&[(types::DATABASE, "False")]);
    let status = compute(BotKind::Audit, Some(1), Some(&said), &starting, at(1));
    assert!(find(&status.conditions, types::DATABASE).is_none(), "its reason is not written over");
}
