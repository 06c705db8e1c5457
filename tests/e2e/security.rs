//! Who can do what with a stolen token: the operator's, a worker's, billing's.

use k8s_openapi::api::{
    apps::v1::StatefulSet,
    authorization::v1::SelfSubjectRulesReview,
    core::v1::{Pod, Secret},
    rbac::v1::{ClusterRole, Role, RoleBinding},
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde::Deserialize as _;
use serde_json::{Value, json};

use crate::support::{
    Gate, Scene, Tenant,
    services::repository,
    tenant::{OPERATOR, merge, system_namespace},
    unique,
};

/// Namespace and name of the account that dev/cluster/values.yaml gives to billing.
const BILLING: &str = "billing";

fn refused<T: std::fmt::Debug>(what: &str, done: kube::Result<T>) {
    match done {
        Err(kube::Error::Api(status)) if status.code == 403 => {}
        other => panic!("{what} is not refused: {other:?}"),
    }
}

fn object<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_operators_token_opens_no_namespace_that_did_not_opt_in() {
    let closed = Tenant::create(&unique("closed"), false).await;
    closed.secret("treasure", &json!({"value": "gold"}), &json!({})).await;
    let open = Tenant::create(&unique("open"), true).await;
    let operator = closed.client_as(&system_namespace(), OPERATOR).await;
    println!("-- directly");
    let secrets: Api<Secret> = Api::namespaced(operator.clone(), &closed.namespace);
    refused("get a Secret", secrets.get("treasure").await);
    refused("list Secrets", secrets.list(&ListParams::default()).await);
    refused("list metadata of Secrets", secrets.list_metadata(&ListParams::default()).await);
    refused("watch Secrets", Api::<Secret>::all(operator.clone()).list(&ListParams::default()).await);
    println!("-- through a Role, a binding, a Pod, a token, its own ClusterRole");
    through_others(&operator, &closed.namespace).await;
    let allowed = rules(&operator, &closed.namespace).await;
    for (resource, verbs) in &allowed {
        let secrets = resource == "secrets" || resource == "*";
        assert!(!secrets, "{resource} {verbs:?} in a namespace that did not opt in");
        for verb in ["escalate", "bind", "impersonate", "*"] {
            assert!(!verbs.iter().any(|one| one == verb), "{verb} {resource}");
        }
    }
    println!("-- where it may work it can give nobody more than it has");
    let roles: Api<Role> = Api::namespaced(operator.clone(), &open.namespace);
    let greedy = json!({"metadata": {"name": "greedy"},
        "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]});
    refused("a Role of everything", roles.create(&PostParams::default(), &object(greedy)).await);
    let bindings: Api<RoleBinding> = Api::namespaced(operator.clone(), &open.namespace);
    refused(
        "bind cluster-admin",
        bindings.create(&PostParams::default(), &object(binding("cluster-admin"))).await,
    );
    let pods: Api<Pod> = Api::namespaced(operator.clone(), &open.namespace);
    refused("a bare Pod", pods.create(&PostParams::default(), &object(pod())).await);

    println!("-- a bot in a closed namespace is told the command");
    closed.apply(&json!({"apiVersion": "ems.element.io/v1alpha1", "kind": "AuditBot",
        "metadata": {"name": "auditbot", "namespace": closed.namespace},
        "spec": {"homeserver": {"serverName": "closed.example", "url": "http://closed.example", "plan": "Gold"}}}))
        .await;
    let words = &["kubectl create rolebinding", "ems-bots-tenant", &closed.namespace];
    let (reason, message) = closed.wait_says("AuditBot", "auditbot", "Ready", "False", words).await;
    println!("   {reason}: {message}");
    let command = message[message.find("kubectl create rolebinding").unwrap()..].to_owned();
    let command = command.split(['\n', '`', ';']).next().unwrap().trim_end_matches('.').to_owned();
    let done = std::process::Command::new("sh").args(["-c", &command]).output().unwrap();
    assert!(done.status.success(), "{command}: {}", String::from_utf8_lossy(&done.stderr));
    println!("-- and after the command it goes on: the next thing that is missing is a Secret");
    closed.wait_says("AuditBot", "auditbot", "AccountReady", "False", &["ems-bots-homeserver"]).await;
    closed.remove().await;
    open.remove().await;
}

async fn through_others(operator: &Client, namespace: &str) {
    let reader = json!({"metadata": {"name": "reader"},
        "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list"]}]});
    let roles: Api<Role> = Api::namespaced(operator.clone(), namespace);
    refused("a Role", roles.create(&PostParams::default(), &object(reader)).await);
    let bindings: Api<RoleBinding> = Api::namespaced(operator.clone(), namespace);
    for role in ["ems-bots-tenant", "cluster-admin", "view"] {
        let done = bindings.create(&PostParams::default(), &object(binding(role))).await;
        refused(&format!("a binding of {role}"), done);
    }
    let pods: Api<Pod> = Api::namespaced(operator.clone(), namespace);
    refused("a Pod", pods.create(&PostParams::default(), &object(pod())).await);
    let sets: Api<StatefulSet> = Api::namespaced(operator.clone(), namespace);
    let set = json!({"metadata": {"name": "thief"}, "spec": {"serviceName": "thief",
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": pod()["spec"]}}});
    refused("a StatefulSet", sets.create(&PostParams::default(), &object(set)).await);
    let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> =
        Api::namespaced(operator.clone(), namespace);
    let request = object(json!({"metadata": {}, "spec": {"audiences": []}}));
    refused("a token", accounts.create_token_request("default", &PostParams::default(), &request).await);
    let wide = json!({"rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]});
    for role in ["ems-bots-operator", "ems-bots-tenant", "cluster-admin"] {
        let cluster: Api<ClusterRole> = Api::all(operator.clone());
        refused(
            &format!("a patch of ClusterRole {role}"),
            cluster.patch(role, &PatchParams::default(), &Patch::Merge(&wide)).await,
        );
    }
}

fn binding(role: &str) -> Value {
    json!({"metadata": {"name": "thief"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": OPERATOR, "namespace": system_namespace()}]})
}

fn pod() -> Value {
    json!({"metadata": {"name": "thief"}, "spec": {"containers": [{"name": "thief", "image": "thief",
        "envFrom": [{"secretRef": {"name": "treasure"}}]}]}})
}

/// What a token may do in a namespace: resources with verbs.
async fn rules(client: &Client, namespace: &str) -> Vec<(String, Vec<String>)> {
    let review = object(json!({"metadata": {}, "spec": {"namespace": namespace}}));
    let reviews: Api<SelfSubjectRulesReview> = Api::all(client.clone());
    let answer = reviews.create(&PostParams::default(), &review).await.unwrap();
    let rules = answer.status.unwrap().resource_rules;
    rules
        .into_iter()
        .flat_map(|rule| {
            let verbs = rule.verbs.clone();
            rule.resources.unwrap_or_default().into_iter().map(move |resource| (resource, verbs.clone()))
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_reaches_its_own_resource_and_billing_reaches_no_secret() {
    let scene = Scene::set("rights", &[]).await;
    scene.audit_bot().await;
    a_workers_token(&scene).await;
    billing(&scene).await;
    scene.end().await;
}

async fn a_workers_token(scene: &Scene) {
    println!("-- a worker's token");
    let tenant = &scene.tenant;
    tenant.bot("AuditBot", "other", &scene.synapse, json!({"username": "other", "suspend": true})).await;
    let worker = Tenant {
        namespace: tenant.namespace.clone(),
        client: tenant.client_as(&tenant.namespace, "auditbot-worker").await,
    };
    let bots = worker.bots("AuditBot");
    bots.get("auditbot").await.expect("its own resource");
    let own = ListParams::default().fields("metadata.name=auditbot");
    assert_eq!(bots.list(&own).await.expect("its own resource").items.len(), 1);
    refused("all bots", bots.list(&ListParams::default()).await);
    refused("another bot", bots.get("other").await);
    refused("a Secret", worker.api::<Secret>().get("auditbot-account").await);
    refused("Secrets", worker.api::<Secret>().list(&ListParams::default()).await);
    refused("Pods", worker.api::<Pod>().list(&ListParams::default()).await);
    let suspend = Patch::Merge(json!({"spec": {"suspend": true}}));
    refused("its own spec", bots.patch("auditbot", &PatchParams::default(), &suspend).await);
    let status = Patch::Merge(json!({"status": {"loginURL": "https://evil.example"}}));
    refused("another's status", bots.patch_status("other", &PatchParams::default(), &status).await);
    refused("a deletion", bots.delete("auditbot", &DeleteParams::default()).await);
    println!("-- not even a worker can make a trail shrink");
    for trail in [json!({"size": 0}), json!({"rootHash": "0".repeat(64)}), Value::Null] {
        let patch = Patch::Merge(json!({"status": {"trail": trail}}));
        let done = bots.patch_status("auditbot", &PatchParams::default(), &patch).await;
        let error = done.expect_err("a trail that shrinks").to_string();
        assert!(error.contains("status.trail cannot"), "{error}");
    }
    tenant.delete_bot("AuditBot", "other").await;
}

/// Billing's account, as the tenant's template binds it.
async fn billing(scene: &Scene) {
    println!("-- billing: the ServiceAccount that the chart's values name");
    let tenant = &scene.tenant;
    // A running demo has it too, so it stays.
    let office = Tenant::create(BILLING, false).await;
    office
        .apply(&json!({"apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": BILLING, "namespace": BILLING}}))
        .await;
    let billing =
        Tenant { namespace: tenant.namespace.clone(), client: tenant.client_as(BILLING, BILLING).await };
    println!("-- it orders what was bought, as examples/billing/order.yaml does, and it becomes Ready");
    tenant.delete_bot("AuditBot", "auditbot").await;
    order(scene, &billing).await;
    tenant.wait_ready("AdminBot", "adminbot").await;
    tenant.wait_ready("AuditBot", "auditbot").await;
    println!("-- it reads no Secret");
    refused("Secrets", billing.api::<Secret>().list(&ListParams::default()).await);
    refused("a Secret", billing.api::<Secret>().get("ems-bots-homeserver").await);
    refused("Pods", billing.api::<Pod>().list(&ListParams::default()).await);
    println!("-- it changes plan, suspend and the reason, nothing else");
    let bots = billing.bots("AdminBot");
    let patch = |value: Value| Patch::Merge(value);
    let allowed = json!({"spec": {"homeserver": {"plan": "Platinum"}, "suspend": true},
        "metadata": {"annotations": {"ems.element.io/change-reason": "invoice 42 is not paid"}}});
    bots.patch("adminbot", &PatchParams::default(), &patch(allowed)).await.expect("this much it may");
    bots.patch("adminbot", &PatchParams::default(), &patch(json!({"spec": {"suspend": false}})))
        .await
        .unwrap();
    for (what, change) in [
        ("the URL", json!({"spec": {"homeserver": {"url": "http://evil.example"}}})),
        ("the display name", json!({"spec": {"displayName": "Mallory"}})),
        ("the rooms", json!({"spec": {"rooms": {"directMessages": false}}})),
        ("the deletion policy", json!({"spec": {"deletionPolicy": "Deactivate"}})),
        ("the database", json!({"spec": {"database": {"secretRef": {"name": "other"}}}})),
        ("another annotation", json!({"metadata": {"annotations": {"ems.element.io/paused": "true"}}})),
        ("the finalizers", json!({"metadata": {"finalizers": null}})),
    ] {
        let done = bots.patch("adminbot", &PatchParams::default(), &patch(change)).await;
        let error = done.expect_err(what).to_string();
        assert!(
            error.contains("plan") && error.contains("suspend"),
            "{what}: it says what is allowed: {error}"
        );
    }
    let status = patch(json!({"status": {"loginURL": "https://evil.example"}}));
    refused("the status", bots.patch_status("adminbot", &PatchParams::default(), &status).await);
    nothing_is_sent_for_billing(scene, &billing).await;
    bots.delete("adminbot", &DeleteParams::default()).await.expect("what is not paid for is removed");
}

/// The example with this test's addresses in place of the example's.
async fn order(scene: &Scene, billing: &Tenant) {
    let text = std::fs::read_to_string(repository().join("examples/billing/order.yaml")).unwrap();
    for document in serde_yaml::Deserializer::from_str(&text) {
        let mut bot = Value::deserialize(document).unwrap();
        bot["metadata"]["namespace"] = json!(billing.namespace);
        let home = &mut bot["spec"]["homeserver"];
        home["serverName"] = json!(scene.synapse.server_name);
        home["url"] = json!(scene.synapse.pod_url);
        home["publicURL"] = json!(scene.synapse.pod_public_url);
        billing.apply(&bot).await;
    }
    println!("-- what names a Secret is refused");
    for (what, spec) in [
        ("a credential", json!({"homeserver": {"adminApi": {"accessToken": {"name": "x", "key": "y"}}}})),
        ("a database", json!({"database": {"secretRef": {"name": "x"}}})),
        ("a proxy", json!({"worker": {"proxy": {"url": "http://evil.example"}}})),
    ] {
        let mut bot = json!({"apiVersion": "ems.element.io/v1alpha1", "kind": "AuditBot",
            "metadata": {"name": "another", "namespace": billing.namespace},
            "spec": {"username": "another", "homeserver": {"serverName": scene.synapse.server_name,
                "url": scene.synapse.pod_url, "plan": "Gold"}}});
        merge(&mut bot["spec"], spec);
        let error = billing.try_apply(&bot).await.expect_err(what).to_string();
        assert!(error.contains("billing cannot"), "{what}: {error}");
    }
}

/// A bot of billing's that points to a server of the attacker's gets no Secret.
async fn nothing_is_sent_for_billing(scene: &Scene, billing: &Tenant) {
    println!("-- it can have no Secret sent to a server of its own");
    let stranger = Gate::open(None).await;
    let mut spec = json!({"username": "thief", "homeserver": {"url": stranger.url}});
    merge(&mut spec, json!({"database": {"schema": "thief"}}));
    let made = billing.bots("AuditBot");
    billing.bot("AuditBot", "thief", &scene.synapse, spec).await;
    let words = &["ems.element.io/homeserver"];
    scene.tenant.wait_says("AuditBot", "thief", "AccountReady", "False", words).await;
    assert!(stranger.seen().is_empty(), "{:?}", stranger.seen());
    made.delete("thief", &DeleteParams::default()).await.unwrap();
}
