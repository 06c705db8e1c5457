//! The console is replaced, killed, or taken out with the whole chart, while failure policy `Fail` holds.

use super::{traffic::Traffic, *};
use crate::{
    install::{RELEASE, chart, helm, install, try_helm},
    support::{
        actions::{is_ready, kill_process},
        console::{self, Strict},
        tenant::{kubectl_in, system_namespace},
    },
};

const WEBHOOK: &str = "ems-bots-console";

/// Failure policy `Fail` as the chart's value, and another one of the operator's, for as long as this is kept.
struct StrictChart(());

fn upgrade(policy: &str, resync: &str) -> Result<String, String> {
    let values = format!("console.failurePolicy={policy},operator.resync={resync}");
    try_helm(&["upgrade", RELEASE, &chart(), "--reuse-values", "--set", &values, "--wait", "--timeout", "3m"])
}

impl StrictChart {
    async fn set() -> Self {
        tokio::task::spawn_blocking(|| upgrade("Fail", "11m")).await.unwrap().expect("an upgrade to Fail");
        Self(())
    }

    async fn unset(self) {
        tokio::task::spawn_blocking(move || drop(self)).await.unwrap();
    }
}

impl Drop for StrictChart {
    fn drop(&mut self) {
        let done = upgrade("Ignore", "10m");
        // A second panic would hide the first one.
        assert!(done.is_ok() || std::thread::panicking(), "an upgrade while Fail holds: {done:?}");
    }
}

fn failure_policy() -> String {
    let words = [
        "get",
        "validatingwebhookconfiguration",
        WEBHOOK,
        "--output",
        "jsonpath={.webhooks[*].failurePolicy}",
    ];
    let (there, said) = kubectl_in(&system_namespace(), &words);
    assert!(there, "{said}");
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_upgrade_of_the_console_refuses_nothing_and_its_death_loses_nothing() {
    let scene = Scene::set("upgrade", &[]).await;
    scene.audit_bot().await;
    let (trail, billing) = (scene.trail("auditbot").await, billing(&scene).await);
    let ran_with = |setting: &'static str, value: Value| {
        move |record: &Value| change(record, setting).is_some_and(|(_, after)| after == value)
    };
    let (policy, resync) = ("/console/failurePolicy", "/operator/resyncSeconds");
    let configured = ["--action", "process.configuration.changed"];
    trail.wait_for(&configured, "the console's configuration", ran_with(policy, json!("Ignore"))).await;
    trail.wait_for(&configured, "the operator's configuration", ran_with(resync, json!(600))).await;
    let old = console::pods(&scene.tenant.client).await;
    println!("-- billing changes the bot, and a person reads a Secret, again and again");
    let traffic = Traffic::begin(&scene, &billing);
    println!("-- helm upgrade to failure policy Fail");
    let strict = StrictChart::set().await;
    assert_eq!(failure_policy(), "Fail");
    console::wait(&scene.tenant.client, 2).await;
    for pod in console::pods(&scene.tenant.client).await {
        assert!(old.iter().all(|old| old.metadata.uid != pod.metadata.uid), "all of it is new");
    }
    assert_eq!(traffic.refused(), [""; 0], "there is always one to report to");
    deaths(&scene, &traffic).await;
    println!("-- what the upgrade changed");
    let of_operator = trail.wait_for(&configured, "another resync", ran_with(resync, json!(660))).await;
    assert_eq!(change(&of_operator, resync), Some((json!(600), json!(660))));
    assert_eq!(actor(&of_operator), "ems-bots/operator");
    println!("-- helm upgrade while Fail holds");
    strict.unset().await;
    assert_eq!(failure_policy(), "Ignore");
    console::wait(&scene.tenant.client, 2).await;
    assert_eq!(traffic.refused(), [""; 0], "there is always one to report to");
    traffic.end().await.is_there_once(&trail).await;
    println!("-- both are in the trail, and that they were taken back");
    let of_console = trail.wait_for(&configured, "another policy", ran_with(policy, json!("Fail"))).await;
    assert_eq!(change(&of_console, policy), Some((json!("Ignore"), json!("Fail"))));
    let is_back = |record: &Value| change(record, resync) == Some((json!(660), json!(600)));
    trail.wait_for(&configured, "the resync from before", is_back).await;
    let says_fail = |record: &Value| {
        let webhooks = change(record, "/object/webhooks").map(|(_, after)| after[0]["failurePolicy"].clone());
        relates(record, "admission", WEBHOOK, "target") && webhooks == Some(json!("Fail"))
    };
    let webhook = trail.wait_for(&["--action", "admission.changed"], "another policy", says_fail).await;
    assert_eq!(actor(&webhook), PERSON);
    scene.end().await;
}

/// What one of two does not live to answer, the other one or the next is asked or told again.
async fn deaths(scene: &Scene, traffic: &Traffic) {
    let client = &scene.tenant.client;
    println!("-- kill -9 of one console");
    kill_process(&console::pods(client).await[0]);
    restarted(client, 1).await;
    println!("-- kill -9 of both at once");
    traffic.refused();
    console::pods(client).await.iter().for_each(kill_process);
    restarted(client, 3).await;
    assert!(!traffic.refused().is_empty(), "without a console nobody changes a bot");
}

/// Waits until both consoles work after so many deaths.
async fn restarted(client: &kube::Client, deaths: i32) {
    eventually(&format!("both consoles after {deaths} deaths"), Duration::from_mins(2), || async {
        let pods = console::pods(client).await;
        let containers =
            pods.iter().filter_map(|pod| pod.status.as_ref()?.container_statuses.as_ref()).flatten();
        let (mut restarts, mut codes) = (0, BTreeSet::new());
        for container in containers {
            restarts += container.restart_count;
            let ended = container.last_state.as_ref().and_then(|state| state.terminated.as_ref());
            codes.extend(ended.map(|ended| ended.exit_code));
        }
        let all_work = pods.len() == 2 && pods.iter().all(is_ready);
        // Killed by signal 9.
        if all_work && restarts == deaths && codes == BTreeSet::from([137]) {
            Ok(())
        } else {
            Err(format!("{restarts} restarts, exit codes {codes:?}, all work: {all_work}"))
        }
    })
    .await;
}

/// What the API server has to trust.
fn authority() -> String {
    let words = ["get", "secret", "ems-bots-console-tls", "--output", "jsonpath={.data.ca\\.crt}"];
    let (there, said) = kubectl_in(&system_namespace(), &words);
    assert!(there && !said.is_empty(), "{said}");
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_chart_goes_without_a_console_and_its_certificate_comes_back() {
    let scene = Scene::set("takenout", &[]).await;
    scene.audit_bot().await;
    let (trail, authority_before) = (scene.trail("auditbot").await, authority());
    let strict = Strict::set();
    console::scale(&scene.tenant.client, 0).await;
    println!("-- helm uninstall");
    let values = helm(&["get", "values", RELEASE, "--output", "json"]);
    helm(&["uninstall", RELEASE, "--wait"]);
    let unseen = json!({"spec": {"displayName": "Nobody is asked"}});
    scene.tenant.patch_bot("AuditBot", "auditbot", unseen).await;
    println!("-- helm install");
    install(&scene, &values).await;
    assert_eq!(authority(), authority_before, "whoever trusts it still does");
    drop(strict);
    // The first of them tell when the API server knows the webhook again.
    let record = eventually("a change that is recorded", Duration::from_mins(2), || async {
        let uid = crate::support::unique("Name");
        scene.tenant.patch_bot("AuditBot", "auditbot", json!({"spec": {"displayName": uid}})).await;
        let records = trail.search(&["--action", "bot.change.requested"]);
        records.into_iter().next().ok_or_else(|| "none".to_owned())
    })
    .await;
    let request = record["relations"].as_array().unwrap().iter().find(|one| one["kind"] == "request");
    assert_eq!(request.unwrap()["role"], "self", "the API server proves itself: {record:#}");
    println!("-- audit events arrive, too");
    eventually("a read that is recorded", Duration::from_mins(2), || async {
        assert!(scene.tenant.kubectl(&["get", "secret", "auditbot-account"]).0);
        let records = trail.search(&["--action", "secret.read"]);
        if records.is_empty() { Err("none".to_owned()) } else { Ok(()) }
    })
    .await;
    scene.end().await;
}
