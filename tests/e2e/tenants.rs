//! Two tenants whose data never mix, and an operator that is killed at the worst moments.

use std::time::{Duration, Instant};

use http::Method;
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{Pod, Secret},
};
use kube::{Api, api::ListParams};
use serde_json::json;

use crate::support::{
    Act, Gate, Rule, Scene, actions, eventually, leaks, scene, sql::psql, tenant::system_namespace,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_of_two_tenants_never_mix() {
    let mut scenes = [Scene::set("tenanta", &["alice"]).await, Scene::set("tenantb", &["alice"]).await];
    for scene in &scenes {
        for (kind, name) in [("AdminBot", "adminbot"), ("AuditBot", "auditbot")] {
            scene.tenant.bot(kind, name, &scene.synapse, json!({})).await;
        }
    }
    let mut rooms = Vec::new();
    for (index, scene) in scenes.iter_mut().enumerate() {
        scene.tenant.wait_ready("AdminBot", "adminbot").await;
        scene.tenant.wait_ready("AuditBot", "auditbot").await;
        let room =
            scene.room("alice", &[], &["adminbot", "auditbot"], json!({"encrypted": true, "name": "Same"}));
        scene.client.send("alice", &room, &format!("our plan number{index}"));
        rooms.push(room);
    }
    let trails = [scenes[0].trail("auditbot").await, scenes[1].trail("auditbot").await];
    for (index, (trail, scene)) in trails.iter().zip(&scenes).enumerate() {
        let other = &scenes[1 - index];
        trail.wait_for_text(&format!("our plan number{index}")).await;
        println!("-- {}: its own words, rooms and people only", scene.tenant.namespace);
        assert_eq!(trail.search(&["our plan"]).len(), 1);
        let all = trail.search(&["--limit", "1000"]);
        assert!(all.len() > 5);
        for record in all {
            let text = record.to_string();
            assert!(!text.contains(&other.synapse.server_name), "{text}");
            assert!(!text.contains(&rooms[1 - index]), "{text}");
        }
        let status = scene.tenant.status("AuditBot", "auditbot").await;
        assert!(!status.to_string().contains(&other.synapse.server_name), "{status}");
        println!("-- its reader opens nothing of the other's database");
        let mut url = url::Url::parse(&trail.reader_url).unwrap();
        url.set_path(&other.database.name);
        let refused =
            psql(url.as_str(), "SELECT count(*) FROM auditbot.envelope").expect_err("a foreign reader");
        assert!(refused.contains("permission denied"), "{refused}");
    }
    for name in ["auditbot-backup-phrase", "auditbot-account", "auditbot-database-roles"] {
        let [one, other] = [&scenes[0], &scenes[1]].map(|scene| scene.tenant.secret_data(name));
        let (one, other) = (one.await.unwrap(), other.await.unwrap());
        for (key, value) in one.iter().filter(|(key, _)| key.as_str() != "username") {
            assert_ne!(Some(value), other.get(key), "{name}/{key} is the same twice");
        }
    }
    let [first, second] = scenes;
    let words = first.tenant.secret_data("auditbot-backup-phrase").await.unwrap()["phrase"].clone();
    leaks::assert_no_secret_shows(&second.tenant, &[&words]).await;
    first.end().await;
    second.end().await;
}

/// The pod that holds the Lease; nobody does for a moment after its holder ended in good order.
async fn leader(client: &kube::Client) -> Option<String> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), &system_namespace());
    let all = leases.list(&ListParams::default()).await.unwrap();
    assert_eq!(all.items.len(), 1, "one Lease");
    all.items[0].spec.clone().unwrap().holder_identity.filter(|holder| !holder.is_empty())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_killed_anywhere_makes_nothing_twice() {
    let scene = Scene::set("killed", &[]).await;
    let gate = Gate::open(Some(&scene.synapse.host_url)).await;
    let shared = json!({"registration-shared-secret": scene.synapse.registration_shared_secret});
    let annotation = json!({"ems.element.io/homeserver": gate.url});
    scene.tenant.secret("ems-bots-homeserver", &shared, &annotation).await;
    let spec = json!({"homeserver": {"url": gate.url}});

    println!("-- killed at each call to the homeserver: before it acts, and before it answers");
    let admin = "/_synapse/admin/v1/register";
    let users = "/_synapse/admin/v2/users/";
    let mut first = true;
    for (method, path, act) in [
        (Method::POST, admin, Act::HoldRequest),
        (Method::POST, admin, Act::HoldAnswer),
        (Method::PUT, users, Act::HoldRequest),
        (Method::PUT, users, Act::HoldAnswer),
    ] {
        gate.forget();
        gate.rules(vec![Rule::new(Some(method.clone()), path, act.clone())]);
        if first {
            scene.tenant.bot("AuditBot", "auditbot", &scene.synapse, spec.clone()).await;
            first = false;
        }
        let what = format!("{method} {path} ({act:?})");
        gate.wait_for(&what, |seen| seen.method == method && seen.path.contains(path)).await;
        println!("   {what}: kill");
        actions::kill_operator(&scene.tenant.client).await;
        // What was held up must not arrive later: its sender is dead.
        actions::wait_operator(&scene.tenant.client).await;
        gate.rules(vec![]);
        if matches!(act, Act::HoldAnswer) {
            eventually("the next attempt", Duration::from_mins(1), || async {
                let seen = gate.seen().len();
                if seen > 1 { Ok(()) } else { Err(format!("{seen} requests")) }
            })
            .await;
        }
    }
    scene.tenant.wait_ready("AuditBot", "auditbot").await;
    everything_exists_once(&scene).await;

    println!("-- the leader is killed: the other takes over");
    let old = leader(&scene.tenant.client).await.expect("there is a leader");
    let pods = actions::operator_pods(&scene.tenant.client);
    let name = pods.list(&ListParams::default()).await.unwrap();
    let name = name.items.iter().filter_map(|pod| pod.metadata.name.clone()).find(|name| old.contains(name));
    let (name, started) = (name.expect("the holder is a pod"), Instant::now());
    actions::kill(&pods, &name).await;
    scene
        .tenant
        .bot("AuditBot", "second", &scene.synapse, {
            let mut spec = spec.clone();
            spec["username"] = json!("second");
            spec["database"] = json!({"schema": "second"});
            spec
        })
        .await;
    let new = eventually("another leader", Duration::from_secs(45), || async {
        let now = leader(&scene.tenant.client).await.ok_or_else(|| "nobody".to_owned())?;
        if now == old { Err(now) } else { Ok(now) }
    })
    .await;
    println!("   {new} after {:?}", started.elapsed());
    scene.tenant.wait_ready("AuditBot", "second").await;
    actions::wait_operator(&scene.tenant.client).await;
    everything_exists_once(&scene).await;
    leaks::assert_no_secret_shows(&scene.tenant, &[]).await;
    scene.end().await;
}

async fn everything_exists_once(scene: &Scene) {
    let secrets = scene.tenant.api::<Secret>().list(&ListParams::default()).await.unwrap();
    let names: Vec<String> = secrets.items.iter().filter_map(|secret| secret.metadata.name.clone()).collect();
    let count = |part: &str| {
        names.iter().filter(|name| name.starts_with("auditbot-") && name.ends_with(part)).count()
    };
    let bots = scene.tenant.bots("AuditBot").list(&ListParams::default()).await.unwrap().items.len();
    for part in ["-backup-phrase", "-account", "-database-roles", "-admin-token"] {
        assert_eq!(count(part), bots, "{part}: {names:?}");
    }
    let (_, users) =
        scene.synapse.admin("GET", "/_synapse/admin/v2/users?from=0&limit=100&guests=false", None).await;
    let all: Vec<String> = users["users"]
        .as_array()
        .unwrap()
        .iter()
        .map(|user| user["name"].as_str().unwrap().to_owned())
        .filter(|name| name.starts_with("@auditbot") || name.starts_with("@second"))
        .collect();
    assert_eq!(all.len(), 2 * bots, "the bot and its worker's admin account: {all:?}");
    for name in ["auditbot", "second"].iter().take(bots) {
        assert_eq!(scene::devices(&scene.synapse, &scene.user_id(name)).await.len(), 1);
        let pods = scene.tenant.api::<Pod>().list(&ListParams::default()).await.unwrap();
        assert_eq!(pods.items.len(), bots);
    }
}
