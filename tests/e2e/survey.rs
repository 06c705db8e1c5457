//! What Synapse tells only who asks, in the trail of a worker that asks it.

use ems_bots::domain::record::{Actor, Occurred, RecordDraft, Relation};
use serde_json::{Value, json};

use crate::support::{
    Database, LocalWorker, Synapse,
    services::{Person, dev, urlencode},
    unique,
};

/// A homeserver and a worker that looks at it.
pub(crate) struct Stage {
    pub(crate) synapse: Synapse,
    pub(crate) worker: LocalWorker,
    _database: Database,
}

impl Stage {
    /// With accounts that are there before recording begins.
    pub(crate) async fn set<const N: usize>(name: &str, people: [&str; N]) -> (Self, [Person; N]) {
        let synapse = Synapse::up(&unique(name));
        let database = Database::tenant(&unique(name).replace('-', "_"));
        let people = people.map(|person| synapse.register(person));
        let mut worker = LocalWorker::prepare("auditbot", &synapse, &database).await;
        worker.start(&synapse);
        let stage = Self { synapse, worker, _database: database };
        for person in &people {
            stage.wait("account.found", person).await;
        }
        (stage, people)
    }

    pub(crate) async fn ask(&self, method: &str, path: &str, token: &str, body: Value) -> Value {
        let (status, answer) = self.synapse.request(method, path, token, Some(body)).await;
        assert_eq!(status, 200, "{method} {path}: {answer}");
        answer
    }

    /// As an administrator.
    pub(crate) async fn order(&self, method: &str, path: &str, body: Value) -> Value {
        self.ask(method, &format!("/_synapse/admin/{path}"), &self.synapse.admin_token(), body).await
    }

    pub(crate) async fn wait(&self, action: &str, about: &Person) -> RecordDraft {
        let of = Relation::new("user", &about.user_id, "target");
        self.worker.wait_for(action, |record| record.relations.contains(&of)).await
    }
}

pub(crate) fn is_between_looks(record: &RecordDraft) -> bool {
    matches!(record.occurred, Occurred::Between(from, to) if from < to)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_synapse_tells_only_who_asks_is_recorded() {
    let (stage, [alice]) = Stage::set("survey", ["alice"]).await;
    stage.worker.wait_for("homeserver.found", |_| true).await;
    let sources = [
        "rooms",
        "accounts",
        "media",
        "quarantine",
        "reports",
        "user reports",
        "deleted rooms",
        "homeserver",
    ];
    let on = sources.map(|source| format!("; {source}: on"));
    stage.worker.wait_report("recording", &on.each_ref().map(String::as_str)).await;

    println!("-- accounts");
    let bob = stage.synapse.register("bob");
    let registered = stage.wait("account.registered", &bob).await;
    assert!(matches!(registered.occurred, Occurred::At(_)), "{:?}", registered.occurred);
    let user = |person: &Person| format!("v2/users/{}", urlencode(&person.user_id));
    for (facts, action) in [
        (json!({"admin": true}), "account.admin_granted"),
        (json!({"displayname": "Robert"}), "account.profile_changed"),
        (json!({"locked": true}), "account.locked"),
        (json!({"locked": false}), "account.unlocked"),
        (
            // The listing does not show addresses: alone, they would be seen within a day.
            json!({"threepids": [{"medium": "email", "address": "bob@example.org"}], "displayname": "Bobby"}),
            "account.identifiers_changed",
        ),
        (json!({"deactivated": true}), "account.deactivated"),
    ] {
        stage.order("PUT", &user(&bob), facts).await;
        let record = stage.wait(action, &bob).await;
        assert!(is_between_looks(&record) && record.actor == Actor::Unknown, "{record:?}");
        assert!(record.changes.iter().all(|change| change.before != change.after), "{record:?}");
    }

    println!("-- sessions");
    let login = json!({"type": "m.login.password", "password": alice.password, "device_id": "TABLET",
        "identifier": {"type": "m.id.user", "user": "alice"}, "initial_device_display_name": "tablet"});
    let session = stage.ask("POST", "/_matrix/client/v3/login", "", login).await;
    let token = session["access_token"].as_str().unwrap();
    // The homeserver notes that a session was used, not that it was begun.
    let me = "/_matrix/client/v3/account/whoami";
    assert_eq!(stage.synapse.request("GET", me, token, None).await.0, 200);
    let of_tablet = |record: &RecordDraft| record.context.device_id.as_deref() == Some("TABLET");
    let started = stage.worker.wait_for("session.started", of_tablet).await;
    assert_eq!((started.actor, started.text.as_deref()), (Actor::matrix(&alice.user_id), Some("tablet")));

    println!("-- media");
    let (_, uploaded) = stage
        .synapse
        .request("POST", "/_matrix/media/v3/upload?filename=plan.json", token, Some(json!({"a": 1})))
        .await;
    let uri = uploaded["content_uri"].as_str().unwrap().to_owned();
    let of_file = |record: &RecordDraft| record.relations.contains(&Relation::new("media", &uri, "target"));
    let upload = stage.worker.wait_for("media.uploaded", of_file).await;
    assert_eq!((upload.text.as_deref(), &upload.actor), (Some("plan.json"), &Actor::matrix(&alice.user_id)));
    let media = uri.trim_start_matches("mxc://").to_owned();
    stage.order("POST", &format!("v1/media/quarantine/{media}"), json!({})).await;
    stage.worker.wait_for("media.quarantined", of_file).await;
    stage.order("POST", &format!("v1/media/unquarantine/{media}"), json!({})).await;
    stage.worker.wait_for("media.quarantine_lifted", of_file).await;

    println!("-- reports");
    let room = stage.ask("POST", "/_matrix/client/v3/createRoom", token, json!({})).await;
    let room = room["room_id"].as_str().unwrap();
    let path = format!("/_matrix/client/v3/rooms/{}", urlencode(room));
    let sent = stage
        .ask(
            "PUT",
            &format!("{path}/send/m.room.message/1"),
            token,
            json!({"msgtype": "m.text", "body": "rude"}),
        )
        .await;
    let event = sent["event_id"].as_str().unwrap();
    stage
        .ask("POST", &format!("{path}/report/{}", urlencode(event)), token, json!({"reason": "not nice"}))
        .await;
    let report = stage.worker.wait_for("report.event_filed", |_| true).await;
    assert_eq!(report.context.reason.as_deref(), Some("not nice"));
    assert!(report.relations.contains(&Relation::new("event", event, "target")), "{:?}", report.relations);

    println!("-- a room is deleted");
    stage.worker.wait_text("rude").await;
    let kept = "SELECT count(*) FROM auditbot.snapshot WHERE source = 'room'";
    crate::support::eventually("the room is known", std::time::Duration::from_mins(1), || async {
        if stage.worker.count(kept) > 0 { Ok(()) } else { Err("no room yet".to_owned()) }
    })
    .await;
    stage.order("DELETE", &format!("v2/rooms/{}", urlencode(room)), json!({"purge": true})).await;
    let of_room = |record: &RecordDraft| record.relations.contains(&Relation::new("room", room, "in"));
    let deleted = stage.worker.wait_for("room.deleted", of_room).await;
    assert!(is_between_looks(&deleted), "{:?}", deleted.occurred);

    println!("-- logout");
    stage.ask("POST", "/_matrix/client/v3/logout", token, json!({})).await;
    // The listing shows nothing of it: with another change it is seen at once, alone within a day.
    stage.order("PUT", &user(&alice), json!({"displayname": "Alice without a tablet"})).await;
    stage.worker.wait_for("session.ended", of_tablet).await;
    the_module_is_looked_at(&stage, &alice).await;
}

async fn the_module_is_looked_at(stage: &Stage, alice: &Person) {
    println!("-- the module");
    stage.worker.wait_report("module", &["Some(false)", "NotLoaded"]).await;
    let restarted_with = |rooms: Value| {
        let bots = json!([{"userId": stage.worker.user_id, "rooms": rooms}]);
        let module = json!({"module": "synapse_ems_bots.module.EmsBots", "config": {"bots": bots}});
        let extra = json!({"modules": [module]}).to_string();
        dev(&["synapse", "up", &stage.synapse.name, "--extra", "-"], Some(&extra));
    };
    restarted_with(json!({"excludeUsers": [alice.user_id]}));
    stage.worker.wait_report("module", &["Some(false)", "SelectionDiffers", "(excludeUsers)"]).await;
    restarted_with(json!({}));
    stage.worker.wait_report("module", &["Some(true)", "Active"]).await;
}
