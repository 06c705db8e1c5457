//! What administrators do to accounts and sessions, and what people report, in the trail of a worker that looks at them.

use std::collections::BTreeSet;

use ems_bots::{
    domain::record::{Actor, RecordDraft, Relation},
    worker::vocabulary,
};
use serde_json::{Value, json};

use crate::{
    support::{
        expected::{has_changed, promised_category},
        init,
        services::{Person, urlencode},
        unique,
    },
    survey::{Stage, is_between_looks},
};

impl Stage {
    /// Waits for the record of this change of an account.
    async fn changed(
        &self,
        who: &Person,
        action: &str,
        path: &str,
        (before, after): (Value, Value),
    ) -> RecordDraft {
        let of = Relation::new("user", &who.user_id, "target");
        let fits = |record: &RecordDraft| {
            record.relations.contains(&of) && has_changed(record, path, &before, &after)
        };
        let record = self.worker.wait_for(action, fits).await;
        assert_eq!(record.category, promised_category(action), "{action}");
        assert!(is_between_looks(&record), "{record:?}");
        record
    }

    /// Something that the list of accounts shows: what it does not show is seen with it, and alone within a day.
    async fn rename(&self, who: &Person) {
        let path = format!("v2/users/{}", urlencode(&who.user_id));
        self.order("PUT", &path, json!({"displayname": unique("name")})).await;
    }
}

fn off_and_on(is_on: bool) -> (Value, Value) {
    (json!(!is_on), json!(is_on))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_administrators_do_to_an_account_is_recorded() {
    let (stage, [carol]) = Stage::set("accounts", ["carol"]).await;
    let user = urlencode(&carol.user_id);
    let account = format!("v2/users/{user}");
    let ban = format!("v1/users/{user}/shadow_ban");
    let suspend = format!("v1/suspend/{user}");
    println!("-- flags, on and off");
    for (method, path, body, action, fact, is_on) in [
        ("PUT", &account, json!({"admin": true}), "account.admin_granted", "admin", true),
        ("PUT", &account, json!({"admin": false}), "account.admin_revoked", "admin", false),
        ("PUT", &account, json!({"locked": true}), "account.locked", "locked", true),
        ("PUT", &account, json!({"locked": false}), "account.unlocked", "locked", false),
        ("POST", &ban, json!({}), "account.shadow_banned", "shadow_banned", true),
        ("DELETE", &ban, json!({}), "account.shadow_ban_lifted", "shadow_banned", false),
        ("PUT", &suspend, json!({"suspend": true}), "account.suspended", "suspended", true),
        ("PUT", &suspend, json!({"suspend": false}), "account.suspension_lifted", "suspended", false),
    ] {
        stage.order(method, path, body).await;
        if fact == "suspended" {
            stage.rename(&carol).await;
        }
        let record = stage.changed(&carol, action, &format!("/account/{fact}"), off_and_on(is_on)).await;
        assert_eq!(record.actor, Actor::Unknown, "{action}");
    }

    println!("-- whatever the homeserver says of an account is recorded, or named as what is not");
    let known = vocabulary::ACCOUNT_FACTS.iter().map(|fact| fact.name);
    let known: BTreeSet<&str> = known.chain(vocabulary::ACCOUNT_FACTS_ASIDE.iter().copied()).collect();
    for (path, list) in [(account.as_str(), ""), ("v2/users?limit=1", "/users/0")] {
        let (status, answer) = stage.synapse.admin("GET", &format!("/_synapse/admin/{path}"), None).await;
        let facts = answer.pointer(list).and_then(Value::as_object);
        let facts = facts.unwrap_or_else(|| panic!("{status} {answer}"));
        let unknown: Vec<_> = facts.keys().filter(|fact| !known.contains(fact.as_str())).collect();
        assert_eq!(unknown, [""; 0], "{path}");
    }

    println!("-- picture, and what it is called elsewhere");
    let (picture, elsewhere) =
        ("mxc://example.org/face", json!([{"auth_provider": "oidc-work", "external_id": "c1"}]));
    stage.order("PUT", &account, json!({"avatar_url": picture})).await;
    let path = "/account/avatar_url";
    stage.changed(&carol, "account.profile_changed", path, (Value::Null, json!(picture))).await;
    stage.order("PUT", &account, json!({"external_ids": elsewhere})).await;
    stage.rename(&carol).await;
    let path = "/account/external_ids";
    stage.changed(&carol, "account.identifiers_changed", path, (json!([]), elsewhere)).await;

    println!("-- the end of an account, and that it is taken back");
    stage.order("POST", &format!("v1/deactivate/{user}"), json!({"erase": true})).await;
    stage.changed(&carol, "account.deactivated", "/account/deactivated", off_and_on(true)).await;
    stage.changed(&carol, "account.erased", "/account/erased", off_and_on(true)).await;
    stage.order("PUT", &account, json!({"deactivated": false, "password": "another one"})).await;
    stage.changed(&carol, "account.reactivated", "/account/deactivated", off_and_on(false)).await;
    stage.changed(&carol, "account.erasure_undone", "/account/erased", off_and_on(false)).await;
}

/// Where somebody is: a network address and a program.
type Place = (&'static str, &'static str);

const HOME: Place = ("203.0.113.7", "Phone/1.0");
const CAFE: Place = ("198.51.100.9", "Phone/2.0");

/// One request from there.
async fn from(stage: &Stage, (ip, program): Place, path: &str, token: &str, body: Option<Value>) -> Value {
    init();
    let http = reqwest::Client::builder().no_proxy().user_agent(program).build().unwrap();
    let url = format!("{}/_matrix/client/v3/{path}", stage.synapse.host_url);
    let request = match body {
        Some(body) => http.post(url).json(&body),
        None => http.get(url).bearer_auth(token),
    };
    let answer = request.header("X-Forwarded-For", ip).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{path}");
    answer.json().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_session_begins_goes_and_ends_is_recorded() {
    let (stage, [dave]) = Stage::set("sessions", ["dave"]).await;
    let found = stage.wait("session.found", &dave).await;
    assert_eq!(found.category, promised_category("session.found"));
    println!("-- a login, and the same session from elsewhere");
    let login = json!({"type": "m.login.password", "password": dave.password, "device_id": "PHONE",
        "identifier": {"type": "m.id.user", "user": "dave"}, "initial_device_display_name": "phone"});
    let session = from(&stage, HOME, "login", "", Some(login)).await;
    let token = session["access_token"].as_str().unwrap();
    // The homeserver notes from where a session is used, not from where it was begun.
    from(&stage, HOME, "account/whoami", token, None).await;
    let began = ("/session/ip", (Value::Null, json!(HOME.0)));
    let started = stage.changed(&dave, "session.started", began.0, began.1).await;
    from(&stage, CAFE, "account/whoami", token, None).await;
    let went = ("/session/ip", (json!(HOME.0), json!(CAFE.0)));
    let moved = stage.changed(&dave, "session.address_changed", went.0, went.1).await;
    assert!(has_changed(&moved, "/session/userAgent", &json!(HOME.1), &json!(CAFE.1)), "{moved:?}");
    for (record, place) in [(&started, HOME), (&moved, CAFE)] {
        is_at(record, place, "phone");
        assert_eq!(record.actor, Actor::matrix(&dave.user_id), "whoever has the session acts as the user");
    }

    println!("-- it gets another name, and is gone");
    let device = format!("v2/users/{}/devices/PHONE", urlencode(&dave.user_id));
    stage.order("PUT", &device, json!({"display_name": "old phone"})).await;
    stage.rename(&dave).await;
    let names = (json!("phone"), json!("old phone"));
    let renamed = stage.changed(&dave, "session.renamed", "/session/name", names).await;
    stage.order("DELETE", &device, json!({})).await;
    stage.rename(&dave).await;
    let gone = (json!("old phone"), Value::Null);
    let ended = stage.changed(&dave, "session.ended", "/session/name", gone).await;
    for record in [&renamed, &ended] {
        is_at(record, CAFE, "old phone");
        assert_eq!(record.actor, Actor::Unknown, "an administrator may do that, too");
    }
}

fn is_at(record: &RecordDraft, (ip, program): Place, name: &str) {
    let context = &record.context;
    assert_eq!((context.ip.as_deref(), context.user_agent.as_deref()), (Some(ip), Some(program)));
    assert_eq!((context.device_id.as_deref(), record.text.as_deref()), (Some("PHONE"), Some(name)));
    assert!(record.relations.contains(&Relation::new("device", "PHONE", "target")), "{record:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whom_people_report_is_recorded() {
    let (stage, [erin, frank]) = Stage::set("reports", ["erin", "frank"]).await;
    let path = format!("/_matrix/client/v3/users/{}/report", urlencode(&frank.user_id));
    stage.ask("POST", &path, &erin.access_token, json!({"reason": "sells carpets"})).await;
    let report = stage.wait("report.user_filed", &frank).await;
    assert_eq!(report.category, promised_category("report.user_filed"));
    assert_eq!(report.actor, Actor::matrix(&erin.user_id));
    assert_eq!(report.context.reason.as_deref(), Some("sells carpets"));
    assert!(report.source_raw.is_some_and(|raw| raw.contains("sells carpets")));
}
