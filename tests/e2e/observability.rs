//! What people on call see of a bot: metrics that move with what happens, log lines that name the bot,
//! and `ems-bots doctor`.

use std::time::Duration;

use ems_bots::domain::{Clock as _, SystemClock};
use k8s_openapi::api::core::v1::Pod;
use kube::api::LogParams;
use serde_json::{Value, json};

use crate::support::{
    Scene, actions, eventually, leaks,
    metrics::Samples,
    tenant::{kubectl_in, system_namespace},
};

const BOTS: [(&str, &str); 2] = [("AdminBot", "adminbot"), ("AuditBot", "auditbot")];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_logs_and_doctor_tell_what_happens() {
    let mut scene = Scene::set("observe", &["alice"]).await;
    scene.bots(&[("AdminBot", "adminbot", json!({})), ("AuditBot", "auditbot", json!({}))]).await;
    let room = scene.room("alice", &[], &["adminbot", "auditbot"], json!({"encrypted": true}));
    scene.client.send("alice", &room, "seen by the metrics");
    scene.trail("auditbot").await.wait_for_text("seen by the metrics").await;
    println!("-- metrics");
    the_operators_count(&scene).await;
    for (kind, name) in BOTS {
        the_workers_count(&scene, kind, name).await;
    }
    println!("-- rooms");
    for (_, name) in BOTS {
        every_room_is_listed(&scene, name, &room).await;
    }
    println!("-- log lines, and their level");
    lines_name_the_bot(&scene).await;
    the_level_changes_without_a_restart(&scene).await;
    println!("-- doctor");
    doctor_finds_nothing_and_then_what_is_broken(&scene).await;
    scene.end().await;
}

async fn every_room_is_listed(scene: &Scene, bot: &str, room: &str) {
    let trail = scene.trail(bot).await;
    eventually("its room on the list", Duration::from_secs(10), || async {
        let rooms = trail.rooms();
        let told = rooms.iter().map(|room| (room["room_id"].as_str(), room["state"].as_str()));
        let told: Vec<_> = told.collect();
        if told == [(Some(room), Some("covered"))] { Ok(()) } else { Err(format!("{rooms:?}")) }
    })
    .await;
}

async fn the_operators_count(scene: &Scene) {
    // Bots are counted now and then, not at every change.
    eventually("one leader that counts ready bots", Duration::from_secs(30), || async {
        let pods = actions::operators(&scene.tenant.client).await;
        let mut leaders = Vec::new();
        for pod in &pods {
            let samples = Samples::of(pod).await;
            if samples.count("ems_bots_operator_leader", &[]) == 1 {
                leaders.push(samples);
            }
        }
        assert_eq!((pods.len(), leaders.len()), (2, 1), "two replicas, one leader");
        for (_, kind) in BOTS {
            let kind = ("kind", kind);
            assert!(leaders[0].count("ems_bots_operator_reconciles_total", &[kind, ("outcome", "done")]) > 0);
            assert!(leaders[0].count("ems_bots_operator_reconcile_duration_seconds_count", &[kind]) > 0);
            assert!(leaders[0].count("ems_bots_operator_queue_depth", &[kind]) >= 0);
            if leaders[0].count("ems_bots_operator_bots", &[kind, ("ready", "true")]) == 0 {
                return Err(format!("{kind:?}: none is ready"));
            }
        }
        Ok(())
    })
    .await;
}

async fn the_workers_count(scene: &Scene, kind: &str, name: &str) {
    let pod = scene.tenant.worker(name).await.unwrap();
    for path in ["/livez", "/readyz"] {
        let (status, body) = leaks::get(&pod, path).await.unwrap();
        assert_eq!(status, 200, "{kind} {path}: {body}");
    }
    let samples = Samples::of(&pod).await;
    assert_eq!(samples.count("ems_bots_worker_rooms", &[("state", "covered")]), 1);
    assert_eq!(samples.count("ems_bots_worker_check", &[("check", "recording")]), 1);
    assert_eq!(samples.count("ems_bots_worker_database_errors_total", &[]), 0);
    assert_eq!(samples.count("ems_bots_worker_undecryptable_events", &[]), 0);
    assert!(samples.count("ems_bots_worker_records_total", &[("category", "system_change")]) > 0);
    if kind == "AuditBot" {
        assert!(samples.count("ems_bots_worker_records_total", &[("category", "user_activity")]) > 0);
    }
    assert!(samples.count("ems_bots_worker_trail_records", &[]) > 0);
    let last = samples.value("ems_bots_worker_last_sync_timestamp_seconds", &[]);
    let ago = SystemClock.now().as_duration().as_secs_f64() - last;
    assert!(ago < 120.0, "{kind} synced {ago} s ago");
    assert!((0.0..60.0).contains(&samples.value("ems_bots_worker_sync_lag_seconds", &[])));
    for word in [scene.synapse.server_name.as_str(), &scene.tenant.namespace] {
        assert!(!samples.text.contains(word), "labels are closed sets, and {word} is a name");
    }
}

async fn log(scene: &Scene, name: &str) -> Vec<Value> {
    let pods = scene.tenant.api::<Pod>();
    let text = pods.logs(&format!("{name}-worker-0"), &LogParams::default()).await.unwrap();
    let line = |line: &str| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"));
    text.lines().map(line).collect()
}

async fn lines_name_the_bot(scene: &Scene) {
    for (kind, name) in BOTS {
        let lines = log(scene, name).await;
        let of_worker: Vec<&Value> = lines.iter().filter(|line| line["span"]["name"] == "worker").collect();
        assert!(of_worker.len() > 2, "{kind}: {lines:?}");
        for line in of_worker {
            let span = &line["span"];
            assert_eq!((&span["namespace"], &span["bot"]), (&json!(scene.tenant.namespace), &json!(name)));
            assert!(span["correlation_id"].as_str().is_some_and(|id| id.len() > 8), "{line}");
        }
    }
}

async fn the_level_changes_without_a_restart(scene: &Scene) {
    let debug = |lines: &[Value]| lines.iter().filter(|line| line["level"] == "DEBUG").count();
    assert_eq!(debug(&log(scene, "auditbot").await), 0, "nobody asked for details");
    let pod = scene.tenant.worker("auditbot").await.unwrap();
    scene
        .tenant
        .annotate(
            "AuditBot",
            "auditbot",
            "ems.element.io/log-filter",
            Some("info,ems_bots=debug,matrix_sdk=debug"),
        )
        .await;
    eventually("lines with details", Duration::from_mins(2), || async {
        let lines = log(scene, "auditbot").await;
        if debug(&lines) > 0 { Ok(()) } else { Err(format!("{} lines", lines.len())) }
    })
    .await;
    let after = scene.tenant.worker("auditbot").await.unwrap();
    assert_eq!(pod.metadata.uid, after.metadata.uid, "the same pod");
    scene.tenant.annotate("AuditBot", "auditbot", "ems.element.io/log-filter", None).await;
}

/// Runs it in the operator's pod, with the operator's rights.
fn doctor(scene: &Scene) -> (bool, Value) {
    let system = system_namespace();
    let (ok, text) = kubectl_in(
        &system,
        &[
            "exec",
            "deploy/ems-bots-operator",
            "--",
            "ems-bots",
            "doctor",
            "--namespace",
            &scene.tenant.namespace,
            "--bot",
            "auditbots/auditbot",
            "--output",
            "json",
        ],
    );
    let json: String = text.lines().skip_while(|line| !line.starts_with(['{', '['])).collect();
    let stream = serde_json::Deserializer::from_str(&json).into_iter::<Value>().next();
    (
        ok,
        stream.unwrap_or_else(|| panic!("no JSON: {text}")).unwrap_or_else(|error| panic!("{error}: {text}")),
    )
}

async fn doctor_finds_nothing_and_then_what_is_broken(scene: &Scene) {
    let (ok, report) = doctor(scene);
    assert!(ok, "{report:#}");
    let shown = report.to_string();
    for part in ["homeserver", "database"] {
        assert!(shown.contains(part), "{part}: {report:#}");
    }
    assert!(!shown.contains(&scene.synapse.registration_shared_secret), "no secret is printed");
    let wrong =
        json!({"value": "not-the-shared-secret", "registration-shared-secret": "not-the-shared-secret"});
    let annotation = json!({"ems.element.io/homeserver": scene.synapse.pod_url});
    scene.tenant.secret("ems-bots-homeserver", &wrong, &annotation).await;
    let (ok, report) = doctor(scene);
    assert!(!ok, "{report:#}");
    assert!(report.to_string().contains("registration"), "it names what is wrong: {report:#}");
}
