//! The ways into a bot as people take them with `kubectl`, what they change around it, and what billing asks for an
//! Admin Bot: each of these is in the trail, once.

use std::{
    collections::BTreeMap,
    process::{Child, Command, Stdio},
};

use k8s_openapi::api::networking::v1::NetworkPolicy;

use super::*;
use crate::support::tenant::{OPERATOR, system_namespace};

const POD: &str = "auditbot-worker-0";
const PHRASE: &str = "auditbot-backup-phrase";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_into_a_bot_is_in_the_trail_once_and_says_who_took_it() {
    let scene = Scene::set("ways", &[]).await;
    let billing = billing(&scene).await;
    order(&scene, &billing, ADMIN).await;
    scene.audit_bot().await;
    scene.tenant.wait_ready("AdminBot", "adminbot").await;
    let (trail, other) = (scene.trail("auditbot").await, scene.trail("adminbot").await);
    let seen = Seen { scene: &scene, trail: &trail };
    let ordered = requested(&other, "bot.creation.requested").await;
    assert_eq!(ordered["context"]["reason"], "order 1");
    is_applied(&other, &ordered).await;
    into_the_pod(&seen).await;
    a_token(&seen).await;
    as_somebody_else(&seen).await;
    as_the_operator(&seen).await;
    a_change_as_somebody_else(&seen).await;
    rights(&seen, &other).await;
    a_network_policy(&seen).await;
    changes(&scene, &billing, &other, ADMIN).await;
    removal(&scene, &billing, &other, ADMIN).await;
    nothing_is_there_twice(&seen);
    scene.end().await;
}

/// What a person did with `kubectl`, as the trail of the Audit Bot has it.
struct Seen<'a> {
    scene: &'a Scene,
    trail: &'a Trail,
}

impl Seen<'_> {
    fn namespace(&self) -> &str {
        &self.scene.tenant.namespace
    }

    fn place(&self, name: &str) -> String {
        format!("{}/{name}", self.namespace())
    }

    fn bot(&self) -> String {
        format!("AuditBot/{}", self.place("auditbot"))
    }

    fn kubectl(&self, arguments: &[&str]) -> String {
        let (done, said) = self.scene.tenant.kubectl(arguments);
        assert!(done, "kubectl {arguments:?}: {said}");
        said
    }

    /// The record of what the person did to a resource, with all that belongs to it.
    async fn record(&self, action: &str, (kind, id): (&str, &str), fits: impl Fn(&Value) -> bool) -> Value {
        let is_it = |record: &Value| relates(record, kind, id, "target") && fits(record);
        let record = self.trail.wait_for(&["--action", action, "--limit", "1000"], action, is_it).await;
        assert_eq!(actor(&record), PERSON);
        let groups = record["actor"]["groups"].as_array().expect("groups of the user");
        assert!(groups.contains(&json!("system:masters")), "{groups:?}");
        assert!(is_person(&record, PERSON, "actor"), "{record:#}");
        record
    }

    /// The same, of what the API server did.
    async fn done(&self, action: &str, target: (&str, &str), fits: impl Fn(&Value) -> bool) -> Value {
        let record = self.record(action, target, |record| request(record).is_some() && fits(record)).await;
        assert!(relates(&record, "namespace", self.namespace(), "in"), "{record:#}");
        let (agent, address) = (&record["context"]["user_agent"], &record["context"]["ip"]);
        assert!(agent.as_str().is_some_and(|agent| agent.starts_with("kubectl/")), "{record:#}");
        assert!(address.is_string(), "{record:#}");
        record
    }

    /// The same, of what concerns this bot only.
    async fn of_bot(
        &self,
        category: &str,
        action: &str,
        target: (&str, &str),
        fits: impl Fn(&Value) -> bool,
    ) -> Value {
        let record = self.done(action, target, fits).await;
        assert!(relates(&record, "bot", &self.bot(), "target"), "{record:#}");
        assert_eq!(record["category"], category);
        record
    }
}

/// The request, as the API server named it when it proved itself.
fn request(record: &Value) -> Option<&str> {
    let mut relations = record["relations"].as_array()?.iter();
    relations.find(|one| one["kind"] == "request" && one["role"] == "self")?["id"].as_str()
}

fn is_person(record: &Value, person: &str, role: &str) -> bool {
    let subject = json!({"person": person, "role": role});
    record["subjects"].as_array().is_some_and(|subjects| subjects.contains(&subject))
}

/// What the record says of the request or the object now.
fn says(record: &Value, path: &str) -> Option<Value> {
    change(record, path).map(|(_, after)| after)
}

fn verb_is(verb: &str) -> impl Fn(&Value) -> bool {
    move |record| says(record, "/request/verb") == Some(json!(verb))
}

fn by_way_of(entrance: &str) -> impl Fn(&Value) -> bool {
    move |record| says(record, "/request/subresource") == Some(json!(entrance))
}

/// A `kubectl` that stays until this is dropped.
struct Open(Child);

impl Open {
    fn new(namespace: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new("kubectl");
        command.args(["--namespace", namespace]).args(arguments);
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("kubectl starts"))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn into_the_pod(seen: &Seen<'_>) {
    let (pod, image) = (seen.place(POD), std::env::var("EMS_TEST_IMAGE").expect("`dev/run e2e` sets it"));
    let entered = async |entrance: &str| {
        println!("-- {entrance}");
        seen.of_bot("access_event", "pod.entered", ("pod", &pod), by_way_of(entrance)).await
    };
    for (entrance, words) in
        [("attach", &["attach", POD][..]), ("portforward", &["port-forward", POD, ":8080"])]
    {
        let _open = Open::new(seen.namespace(), words);
        entered(entrance).await;
    }
    seen.kubectl(&["exec", POD, "--", "/usr/local/bin/ems-bots", "--version"]);
    entered("exec").await;
    let metrics = format!("/api/v1/namespaces/{}/pods/{POD}:8080/proxy/metrics", seen.namespace());
    assert!(seen.kubectl(&["get", "--raw", &metrics]).contains("ems_bots_"));
    let through = entered("proxy").await;
    assert_eq!(says(&through, "/request/name"), Some(json!(format!("{POD}:8080"))));
    by_way_of_its_kubelet(seen, &pod).await;
    let image = format!("--image={image}");
    let options = ["--image-pull-policy=IfNotPresent", "--profile=restricted", "--container=guest"];
    let debug = [&["debug", POD, &image][..], &options, &["--", "/usr/local/bin/ems-bots", "--version"]];
    seen.kubectl(&debug.concat());
    entered("ephemeralcontainers").await;
}

/// The API server knows of this only that somebody asks a node for something.
async fn by_way_of_its_kubelet(seen: &Seen<'_>, pod: &str) {
    println!("-- the same by way of its node");
    let node = seen.kubectl(&["get", "pod", POD, "-o", "jsonpath={.spec.nodeName}"]);
    let run = format!(
        "/api/v1/nodes/{node}/proxy/run/{}/{POD}/worker?cmd=/usr/local/bin/ems-bots%20--version",
        seen.namespace()
    );
    assert!(seen.kubectl(&["create", "--raw", &run, "-f", "/dev/null"]).contains("ems-bots "));
    let of_node = |record: &Value| says(record, "/request/name") == Some(json!(node));
    let record = seen.of_bot("access_event", "pod.entered", ("pod", pod), of_node).await;
    assert!(by_way_of("exec")(&record), "{record:#}");
}

async fn a_token(seen: &Seen<'_>) {
    println!("-- a token of the worker's account");
    let token = seen.kubectl(&["create", "token", "auditbot-worker"]);
    let account = seen.place("auditbot-worker");
    let record =
        seen.of_bot("access_event", "token.issued", ("service_account", &account), verb_is("create")).await;
    assert!(!record.to_string().contains(token.trim()), "not the token itself");
}

async fn as_somebody_else(seen: &Seen<'_>) {
    println!("-- a Secret is read as somebody else, who may, and who may not");
    let secret = seen.place(PHRASE);
    let reads = |user: &'static str| move |record: &Value| record["on_behalf_of"] == user;
    seen.kubectl(&["--as=carol", "--as-group=system:masters", "get", "secret", PHRASE]);
    let record = seen.of_bot("access_event", "secret.read", ("secret", &secret), reads("carol")).await;
    assert!(is_person(&record, "carol", "on_behalf_of"), "{record:#}");
    let (done, said) = seen.scene.tenant.kubectl(&["--as=mallory", "get", "secret", PHRASE]);
    assert!(!done && said.contains("mallory"), "{said}");
    let record = seen.record("secret.read", ("secret", &secret), reads("mallory")).await;
    assert!(is_person(&record, "mallory", "on_behalf_of"), "{record:#}");
    assert_eq!(says(&record, "/response/code"), Some(json!(403)), "{record:#}");
}

/// What the operator reads itself is done by rule; what somebody reads in its name is not.
async fn as_the_operator(seen: &Seen<'_>) {
    println!("-- a Secret is read as the operator");
    let operator = format!("system:serviceaccount:{}:{OPERATOR}", system_namespace());
    seen.kubectl(&["--as", &operator, "get", "secret", "auditbot-account"]);
    let as_operator = |record: &Value| record["on_behalf_of"] == operator.as_str();
    let secret = seen.place("auditbot-account");
    let read = seen.of_bot("access_event", "secret.read", ("secret", &secret), as_operator).await;
    let account = format!("{}/{OPERATOR}", system_namespace());
    let is_same = |record: &Value| as_operator(record) && request(record) == request(&read);
    let told = seen.record("user.impersonated", ("service_account", &account), is_same).await;
    assert!(!told.to_string().contains(seen.namespace()), "all bots are told: {told:#}");
}

/// Whoever admits a change is asked about the one only in whose name it is made.
async fn a_change_as_somebody_else(seen: &Seen<'_>) {
    println!("-- a bot is changed as somebody else");
    let reason = format!("{REASON}=borrowed");
    seen.kubectl(&["--as=carol", "--as-group=system:masters", "annotate", "auditbot", "auditbot", &reason]);
    let is_borrowed = |record: &Value| record["context"]["reason"] == "borrowed";
    let asked = "bot.change.requested";
    let change = seen.trail.wait_for(&["--action", asked], asked, is_borrowed).await;
    assert_eq!(actor(&change), "carol");
    let as_carol = |record: &Value| record["on_behalf_of"] == "carol";
    seen.of_bot("access_event", "user.impersonated", ("user", "carol"), as_carol).await;
}

async fn rights(seen: &Seen<'_>, other: &Trail) {
    println!("-- somebody is given the right to read the phrase, and loses it");
    let (role, binding) = (seen.place("reader"), seen.place("mallory-reads"));
    let name = format!("--resource-name={PHRASE}");
    seen.kubectl(&["create", "role", "reader", "--verb=get", "--resource=secrets", &name]);
    seen.kubectl(&["create", "rolebinding", "mallory-reads", "--role=reader", "--user=mallory"]);
    let given = |place: &str, path: &'static str, word: &'static str| {
        let says_it = move |record: &Value| {
            says(record, path).is_some_and(|value| value.to_string().contains(word))
                && verb_is("create")(record)
        };
        (place.to_owned(), says_it)
    };
    for (place, says_it) in
        [given(&role, "/object/rules", PHRASE), given(&binding, "/object/subjects", "mallory")]
    {
        seen.of_bot("system_change", "rights.changed", ("role", &place), says_it).await;
        // Whoever is given rights in the namespace has them on the other bot, too.
        let concerns =
            |record: &Value| relates(record, "role", &place, "target") && verb_is("create")(record);
        other.wait_for(&["--action", "rights.changed", "--limit", "1000"], "the other bot", concerns).await;
    }
    assert!(
        seen.scene.tenant.kubectl(&["--as=mallory", "get", "secret", PHRASE]).0,
        "it was a right to that"
    );
    for (kind, name, place) in [("rolebinding", "mallory-reads", &binding), ("role", "reader", &role)] {
        seen.kubectl(&["delete", kind, name]);
        seen.of_bot("system_change", "rights.changed", ("role", place), verb_is("delete")).await;
    }
}

async fn a_network_policy(seen: &Seen<'_>) {
    println!("-- the worker's network policy is opened, and deleted");
    let policies = seen.scene.tenant.api::<NetworkPolicy>();
    let uid = async || policies.get_opt("auditbot-worker").await.unwrap()?.metadata.uid;
    let (first, place) = (uid().await, seen.place("auditbot-worker"));
    let open = r#"{"spec":{"egress":[{}]}}"#;
    seen.kubectl(&["patch", "networkpolicy", "auditbot-worker", "--type=merge", "--patch", open]);
    let target = ("network_policy", place.as_str());
    let opened = |record: &Value| says(record, "/object/spec/egress") == Some(json!([{}]));
    seen.of_bot("system_change", "network_policy.changed", target, opened).await;
    seen.kubectl(&["delete", "networkpolicy", "auditbot-worker"]);
    seen.of_bot("system_change", "network_policy.changed", target, verb_is("delete")).await;
    eventually("another network policy", Duration::from_mins(1), || async {
        match uid().await {
            Some(uid) if Some(&uid) != first.as_ref() => Ok(()),
            seen => Err(format!("{seen:?}, before {first:?}")),
        }
    })
    .await;
    seen.kubectl(&["annotate", "secret", "ems-bots-database", "looked-at=now"]);
    let secret = seen.place("ems-bots-database");
    // That it was applied before there was a bot is told late, and may then be in the trail as well.
    let is_there = |record: &Value| says(record, "/response/code") == Some(json!(200));
    let annotated = |record: &Value| verb_is("patch")(record) && is_there(record);
    seen.of_bot("system_change", "secret.changed", ("secret", &secret), annotated).await;
}

/// Of each request there is one record of a kind, and none of what is done by rule: that the operator closes again what
/// a person has opened.
fn nothing_is_there_twice(seen: &Seen<'_>) {
    let all = seen.trail.search(&["--limit", "10000"]);
    let mut counts = BTreeMap::new();
    for record in all.iter().filter(|record| record["actor"]["type"] == "kubernetes_user") {
        if let Some(id) = request(record) {
            *counts.entry((record["action"].to_string(), id)).or_insert(0) += 1;
        }
    }
    assert!(!counts.is_empty() && counts.values().all(|count| *count == 1), "{counts:#?}");
    let pod = seen.place(POD);
    let entered = |record: &&Value| relates(record, "pod", &pod, "target");
    let entrances = all.iter().filter(entered).filter_map(|record| says(record, "/request/subresource"));
    let mut entrances: Vec<String> = entrances.map(|entrance| entrance.to_string()).collect();
    entrances.sort();
    let expected = ["attach", "ephemeralcontainers", "exec", "exec", "portforward", "proxy"];
    assert_eq!(entrances, expected.map(|entrance| format!("\"{entrance}\"")));
    let changed =
        |record: &&Value| relates(record, "network_policy", &seen.place("auditbot-worker"), "target");
    assert_eq!(all.iter().filter(changed).count(), 2, "what the person did, and no more");
}
