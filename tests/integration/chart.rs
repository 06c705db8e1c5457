//! The chart, rendered: what it refuses, and what holds for everything in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::{Value, json};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn helm(arguments: &[&str]) -> Output {
    let program = std::env::var("HELM").unwrap_or_else(|_| "helm".to_owned());
    Command::new(&program).args(arguments).current_dir(root()).output().unwrap_or_else(|error| {
        panic!("{program}: {error}; put helm 3 into PATH or its path into HELM (`dev/run tools` builds it)")
    })
}

fn template(settings: &[&str]) -> Output {
    let mut arguments = vec!["template", "ems-bots", "charts/ems-bots", "--namespace", "ems-bots-system"];
    // Without a cluster Helm takes the version that it was built for, which may be none.
    arguments.extend(["--kube-version", "1.30.0"]);
    for setting in settings {
        arguments.extend(["--set-json", setting]);
    }
    helm(&arguments)
}

fn text(settings: &[&str]) -> String {
    let output = template(settings);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn render(settings: &[&str]) -> Vec<Value> {
    serde_yaml::Deserializer::from_str(&text(settings))
        .map(|document| <Value as serde::Deserialize>::deserialize(document).unwrap())
        .filter(|document| !document.is_null())
        .collect()
}

/// Every part of the chart that values switch on.
const EVERYTHING: &[&str] = &[
    "networkPolicy.enabled=true",
    "networkPolicy.metricsFrom=[{\"namespaceSelector\":{}}]",
    "networkPolicy.intakeFrom=[{\"ipBlock\":{\"cidr\":\"10.0.0.10/32\"}}]",
    "metrics.serviceMonitor={\"enabled\":true,\"labels\":{\"release\":\"prometheus\"}}",
    "metrics.podMonitor.enabled=true",
    "billing={\"groups\":[\"billing\"],\"serviceAccounts\":[{\"namespace\":\"billing\",\"name\":\"billing\"}]}",
    "imagePullSecrets=[{\"name\":\"registry\"}]",
    "worker={\"image\":\"registry.example/ems-bots:2\",\"imagePullSecrets\":[\"one\",\"two\"]}",
    "elementWeb.allowedHosts=[\"app.example.org\",\"chat.example.org:8443\"]",
    "operator.nodeSelector={\"a\":\"b\"}",
    "operator.tolerations=[{\"key\":\"a\",\"operator\":\"Exists\"}]",
    "operator.priorityClassName=\"important\"",
    "operator.podLabels={\"team\":\"chat\"}",
    "operator.podAnnotations={\"a\":\"b\"}",
    "rbac.aggregateToView=true",
    "console.enabled=true",
    "console.database.caSecretName=\"console-ca\"",
    "console.caller={\"clientCASecretName\":\"caller-ca\",\"tokenSecretName\":\"caller-token\"}",
    "console.clusterIP=\"10.96.0.20\"",
    "console.priorityClassName=\"important\"",
    "console.podLabels={\"team\":\"chat\"}",
];

/// Certificates that somebody else makes.
const FOREIGN_CERTIFICATE: &[&[&str]] = &[
    &[
        "console.enabled=true",
        "console.certificate={\"source\":\"CertManager\",\"issuerRef\":{\"name\":\"one\"}}",
    ],
    &[
        "console.enabled=true",
        "console.certificate={\"source\":\"Secret\",\"caBundle\":\"-----BEGIN CERTIFICATE-----\"}",
    ],
];

fn find<'a>(documents: &'a [Value], kind: &str, name: &str) -> &'a Value {
    documents
        .iter()
        .find(|document| document["kind"] == kind && document["metadata"]["name"] == name)
        .unwrap_or_else(|| panic!("no {kind} {name}"))
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

fn environment(documents: &[Value]) -> BTreeMap<String, String> {
    let pod = &find(documents, "Deployment", "ems-bots-operator")["spec"]["template"]["spec"];
    let variables = pod["containers"][0]["env"].as_array().unwrap();
    variables
        .iter()
        .map(|one| {
            (one["name"].as_str().unwrap().to_owned(), one["value"].as_str().unwrap_or_default().to_owned())
        })
        .collect()
}

#[test]
fn helm_finds_nothing_to_complain_of() {
    let output = helm(&["lint", "--strict", "charts/ems-bots"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && !said.contains("[WARNING]") && !said.contains("[ERROR]"), "{said}");
}

#[test]
fn nonsense_in_values_is_refused() {
    for nonsense in [
        "operatr={}",
        "operator.replica=2",
        "operator.replicas=\"two\"",
        "operator.replicas=-1",
        "operator.resync=\"soon\"",
        "image.repository=\"\"",
        "image.tag=\"a b\"",
        "image.digest=\"sha256:short\"",
        "image.pullPolicy=\"Sometimes\"",
        "apiServer.ports=[0]",
        "apiServer.ports=[70000]",
        "worker.egressPorts=[0]",
        "elementWeb.allowedHosts=[\"https://app.example.org\"]",
        "elementWeb.allowedHosts=[\"*.example.org\"]",
        "billing.serviceAccounts=[{\"name\":\"billing\"}]",
        "billing.groups=[\"\"]",
        "metrics.podMonitor.enable=true",
        "serviceAccount.name=\"A\"",
        "worker.image=\"a b\"",
        "console.replicas=0",
        "console.failurePolicy=\"Sometimes\"",
        "console.timeoutSeconds=1",
        "console.certificate.source=\"CertManager\"",
        "console.certificate.source=\"Secret\"",
        "console.database.schema=\"a b\"",
        "console.clusterIP=\"a name\"",
    ] {
        let output = template(&[nonsense]);
        assert!(!output.status.success(), "{nonsense} was accepted");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("values don't meet the specifications of the schema"), "{nonsense}: {said}");
    }
}

#[test]
fn it_renders_identically_twice() {
    assert_eq!(text(&[]), text(&[]));
    assert_eq!(text(EVERYTHING), text(EVERYTHING));
}

#[test]
fn nothing_depends_on_the_moment_or_on_the_cluster() {
    let folder = root().join("charts/ems-bots/templates");
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let source = fs::read_to_string(&path).unwrap();
        for word in [
            "lookup",
            "rand",
            "now",
            "uuidv4",
            "genCA",
            "genSignedCert",
            "genPrivateKey",
            "htpasswd",
            ".Release.Revision",
            "helm.sh/hook",
        ] {
            let found = source.match_indices(word).any(|(at, _)| {
                let before = source[..at].chars().last().unwrap_or(' ');
                let inside = source[..at].rfind("{{").is_some_and(|open| !source[open..at].contains("}}"));
                !before.is_alphanumeric() && (inside || word.contains('/'))
            });
            assert!(!found, "{}: {word}", path.display());
        }
    }
}

#[test]
fn every_object_says_what_it_belongs_to() {
    for document in render(EVERYTHING) {
        let labels = &document["metadata"]["labels"];
        let name = &document["metadata"]["name"];
        for (label, value) in [
            ("app.kubernetes.io/name", "ems-bots"),
            ("app.kubernetes.io/instance", "ems-bots"),
            ("app.kubernetes.io/managed-by", "Helm"),
        ] {
            assert_eq!(labels[label], value, "{} {name}", document["kind"]);
        }
        let kind = document["kind"].as_str().unwrap();
        let clusterwide = kind.starts_with("Cluster")
            || kind.starts_with("Validating")
            || kind == "CustomResourceDefinition";
        assert_eq!(document["metadata"].get("namespace").is_none(), clusterwide, "{kind} {name}");
    }
}

#[test]
fn definitions_are_the_committed_ones_and_survive_the_chart() {
    let documents = render(&[]);
    for plural in ["adminbots", "auditbots"] {
        let committed: Value =
            serde_yaml::from_str(&fs::read_to_string(root().join(format!("crds/{plural}.yaml"))).unwrap())
                .unwrap();
        let rendered = find(&documents, "CustomResourceDefinition", &format!("{plural}.ems.element.io"));
        assert!(rendered["spec"] == committed["spec"], "{plural}");
        assert_eq!(rendered["metadata"]["annotations"], json!({"helm.sh/resource-policy": "keep"}));
    }
    let without = render(&["crds.install=false"]);
    assert!(without.iter().all(|document| document["kind"] != "CustomResourceDefinition"));
}

#[test]
fn pods_are_restricted_probed_and_bounded() {
    let documents = render(EVERYTHING);
    let deployment = find(&documents, "Deployment", "ems-bots-operator");
    assert_eq!(deployment["spec"]["replicas"], 2);
    let pod = &deployment["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    for forbidden in ["hostNetwork", "hostPID", "hostIPC"] {
        assert!(pod.get(forbidden).is_none(), "{forbidden}");
    }
    assert_eq!(pod["topologySpreadConstraints"][0]["labelSelector"], deployment["spec"]["selector"]);
    for container in pod["containers"].as_array().unwrap() {
        let security = &container["securityContext"];
        assert_eq!(security["allowPrivilegeEscalation"], false);
        assert_eq!(security["readOnlyRootFilesystem"], true);
        assert_eq!(security["runAsNonRoot"], true);
        assert_eq!(security["capabilities"], json!({"drop": ["ALL"]}));
        for (probe, path) in
            [("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")]
        {
            assert_eq!(container[probe]["httpGet"]["path"], path, "{probe}");
            assert_eq!(container[probe]["httpGet"]["port"], "http", "{probe}");
        }
        assert_eq!(container["ports"][0], json!({"name": "http", "containerPort": 8080, "protocol": "TCP"}));
        assert!(container["resources"]["requests"]["memory"].is_string());
        assert!(container["resources"]["limits"]["memory"].is_string());
    }
    for volume in pod["volumes"].as_array().unwrap() {
        assert!(volume.get("hostPath").is_none() && volume.get("secret").is_none(), "{volume}");
    }
}

#[test]
fn selectors_meet_the_operators_pods() {
    let documents = render(EVERYTHING);
    let labels =
        &find(&documents, "Deployment", "ems-bots-operator")["spec"]["template"]["metadata"]["labels"];
    for (kind, name, path) in [
        ("Deployment", "ems-bots-operator", "/spec/selector/matchLabels"),
        ("Service", "ems-bots-operator-metrics", "/spec/selector"),
        ("PodDisruptionBudget", "ems-bots-operator", "/spec/selector/matchLabels"),
        ("NetworkPolicy", "ems-bots-operator", "/spec/podSelector/matchLabels"),
    ] {
        let selector = find(&documents, kind, name).pointer(path).unwrap().as_object().unwrap();
        assert!(!selector.is_empty() && selector.iter().all(|(key, value)| labels[key] == *value), "{kind}");
    }
    let service = &find(&documents, "Service", "ems-bots-operator-metrics")["metadata"]["labels"];
    let monitor = find(&documents, "ServiceMonitor", "ems-bots-operator");
    let selector = monitor["spec"]["selector"]["matchLabels"].as_object().unwrap();
    assert!(selector.iter().all(|(key, value)| service[key] == *value));
}

#[test]
fn settings_reach_the_operator() {
    let plain = environment(&render(&["image.repository=\"registry.example/ems-bots\"", "image.tag=\"9\""]));
    assert_eq!(plain["EMS_WORKER_IMAGE"], "registry.example/ems-bots:9");
    assert_eq!(plain["EMS_PAUSED"], "false");
    assert_eq!(plain["EMS_SERVICE_ACCOUNT"], "ems-bots-operator");
    assert_eq!(plain["EMS_ALLOWED_ELEMENT_WEB_HOSTS"], "");
    let documents = render(EVERYTHING);
    let full = environment(&documents);
    assert_eq!(full["EMS_WORKER_IMAGE"], "registry.example/ems-bots:2");
    assert_eq!(full["EMS_WORKER_IMAGE_PULL_SECRETS"], "one,two");
    assert_eq!(full["EMS_ALLOWED_ELEMENT_WEB_HOSTS"], "app.example.org,chat.example.org:8443");
    assert_eq!(full["EMS_API_SERVER_PORTS"], "443,6443");
    let digest = format!("image.digest=\"sha256:{}\"", "a".repeat(64));
    assert!(environment(&render(&[&digest]))["EMS_WORKER_IMAGE"].ends_with(&"a".repeat(64)));

    let config = find(&documents, "ConfigMap", "ems-bots-logging");
    assert_eq!(config["data"]["filter"], "info");
    let pod = &find(&documents, "Deployment", "ems-bots-operator")["spec"]["template"]["spec"];
    let mount = &pod["containers"][0]["volumeMounts"][0];
    // A mount of a single file is never updated.
    assert_eq!(mount["mountPath"], "/etc/ems-bots/logging");
    assert!(mount.get("subPath").is_none());
    assert_eq!(full["EMS_LOG_FILTER_FILE"], "/etc/ems-bots/logging/filter");
}

#[test]
fn the_operator_knows_every_setting_of_the_chart() {
    let output = Command::new(env!("CARGO_BIN_EXE_ems-bots")).args(["operator", "--help"]).output().unwrap();
    let help = String::from_utf8_lossy(&output.stdout);
    // The help is wrapped to the width of a page.
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    for name in environment(&render(EVERYTHING)).keys() {
        assert!(help.contains(&format!("[env: {name}")), "{name} does nothing: {help}");
    }
}

/// `(apiGroup, resource) -> verbs`.
type Rights = BTreeMap<(String, String), BTreeSet<String>>;

fn rights(role: &Value) -> Rights {
    let mut rights = Rights::new();
    for rule in role["rules"].as_array().unwrap() {
        for group in strings(&rule["apiGroups"]) {
            for resource in strings(&rule["resources"]) {
                rights
                    .entry((group.to_owned(), resource.to_owned()))
                    .or_default()
                    .extend(strings(&rule["verbs"]).into_iter().map(str::to_owned));
            }
        }
    }
    rights
}

fn roles(documents: &[Value]) -> impl Iterator<Item = &Value> {
    documents.iter().filter(|document| matches!(document["kind"].as_str(), Some("Role" | "ClusterRole")))
}

#[test]
fn no_role_has_wildcards_or_ways_to_more() {
    for role in roles(&render(EVERYTHING)) {
        for ((group, resource), verbs) in rights(role) {
            let name = &role["metadata"]["name"];
            for word in [&group, &resource].into_iter().chain(&verbs) {
                assert!(!word.contains('*'), "{name}: {group} {resource} {verbs:?}");
            }
            for verb in ["escalate", "bind", "impersonate", "deletecollection"] {
                assert!(!verbs.contains(verb), "{name}: {verb} {resource}");
            }
            for dangerous in
                ["pods/exec", "pods/attach", "pods/portforward", "serviceaccounts/token", "nodes/proxy"]
            {
                assert_ne!(resource, dangerous, "{name}");
            }
        }
    }
}

#[test]
fn only_the_tenants_role_touches_secrets_and_nothing_binds_it() {
    let documents = render(EVERYTHING);
    for role in roles(&documents) {
        let name = role["metadata"]["name"].as_str().unwrap();
        let secrets = rights(role).keys().any(|(_, resource)| resource.starts_with("secrets"));
        let is_own = role["kind"] == "Role" && name == "ems-bots-console";
        assert_eq!(secrets, name == "ems-bots-tenant" || is_own, "{name}");
    }
    for document in &documents {
        if document["kind"].as_str().is_some_and(|kind| kind.ends_with("RoleBinding")) {
            assert_ne!(document["roleRef"]["name"], "ems-bots-tenant");
        }
    }
    let tenant = rights(find(&documents, "ClusterRole", "ems-bots-tenant"));
    let verbs = &tenant[&(String::new(), "secrets".to_owned())];
    assert_eq!(
        *verbs,
        ["get", "list", "watch", "create", "delete"].map(str::to_owned).into(),
        "never changed"
    );
}

#[test]
fn the_operator_has_everywhere_what_it_needs_everywhere() {
    let documents = render(&[]);
    let mut expected = Rights::new();
    let mut grant = |group: &str, resources: &[&str], verbs: &[&str]| {
        for resource in resources {
            expected.insert(
                (group.to_owned(), (*resource).to_owned()),
                verbs.iter().map(|&verb| verb.to_owned()).collect(),
            );
        }
    };
    grant("ems.element.io", &["adminbots", "auditbots"], &["get", "list", "watch", "patch"]);
    grant("ems.element.io", &["adminbots/status", "auditbots/status"], &["patch"]);
    grant("ems.element.io", &["adminbots/finalizers", "auditbots/finalizers"], &["update"]);
    grant("", &["events"], &["create", "patch"]);
    grant("events.k8s.io", &["events"], &["create", "patch"]);
    grant("", &["persistentvolumeclaims", "serviceaccounts", "services"], &["list", "watch"]);
    grant("networking.k8s.io", &["networkpolicies"], &["list", "watch"]);
    assert_eq!(rights(find(&documents, "ClusterRole", "ems-bots-operator")), expected);
    let binding = find(&documents, "ClusterRoleBinding", "ems-bots-operator");
    assert_eq!(
        binding["subjects"][0],
        json!({"kind": "ServiceAccount", "name": "ems-bots-operator", "namespace": "ems-bots-system"})
    );
    let lease = find(&documents, "Role", "ems-bots-operator-lease");
    assert_eq!(lease["rules"][0]["resourceNames"], json!([environment(&documents)["EMS_LEASE_NAME"]]));
}

#[test]
fn the_tenants_role_holds_what_a_workers_role_grants() {
    let documents = render(&[]);
    let tenant = rights(find(&documents, "ClusterRole", "ems-bots-tenant"));
    let has = |group: &str, resource: &str, verb: &str| {
        tenant.get(&(group.to_owned(), resource.to_owned())).is_some_and(|verbs| verbs.contains(verb))
    };
    for kind in ["adminbots", "auditbots"] {
        for verb in ["get", "list", "watch"] {
            assert!(has("ems.element.io", kind, verb), "{verb} {kind}");
        }
        assert!(has("ems.element.io", &format!("{kind}/status"), "patch"), "{kind}");
    }
    for (group, resource) in [
        ("", "configmaps"),
        ("", "serviceaccounts"),
        ("", "services"),
        ("", "persistentvolumeclaims"),
        ("apps", "statefulsets"),
        ("networking.k8s.io", "networkpolicies"),
        ("rbac.authorization.k8s.io", "roles"),
        ("rbac.authorization.k8s.io", "rolebindings"),
    ] {
        for verb in ["get", "list", "watch", "create", "patch", "delete"] {
            assert!(has(group, resource, verb), "{verb} {resource}");
        }
    }
}

#[test]
fn people_get_nothing_by_the_way() {
    for (settings, aggregated) in [(&[] as &[&str], 0), (&["rbac.aggregateToView=true"], 1)] {
        let documents = render(settings);
        let to_view: Vec<&Value> = roles(&documents)
            .filter(|role| {
                role["metadata"]["labels"]
                    .as_object()
                    .unwrap()
                    .keys()
                    .any(|label| label.contains("aggregate-to"))
            })
            .collect();
        assert_eq!(to_view.len(), aggregated);
        for role in to_view {
            for (resource, verbs) in rights(role) {
                assert!(verbs.is_subset(&["get", "list", "watch"].map(str::to_owned).into()), "{resource:?}");
            }
        }
    }
}

#[test]
fn billing_is_held_by_a_policy_that_is_always_there() {
    for settings in [&[] as &[&str], EVERYTHING] {
        let documents = render(settings);
        let policy = find(&documents, "ValidatingAdmissionPolicy", "ems-bots-billing");
        assert_eq!(policy["spec"]["failurePolicy"], "Fail");
        let refused: Vec<&str> = policy["spec"]["validations"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|validation| validation["message"].as_str())
            .collect();
        for field in ["spec.homeserver.adminApi", "spec.database", "spec.worker.proxy", "spec.media.bucket"] {
            assert!(refused.iter().any(|message| message.contains(field)), "{field}: {refused:?}");
        }
        let binding = find(&documents, "ValidatingAdmissionPolicyBinding", "ems-bots-billing");
        assert_eq!(binding["spec"]["policyName"], "ems-bots-billing");
        assert_eq!(binding["spec"]["validationActions"], json!(["Deny"]));
        // The policy knows billing by a verb that no other role has.
        for role in roles(&documents) {
            let bills = rights(role).values().any(|verbs| verbs.contains("bill"));
            let configures = rights(role).values().any(|verbs| verbs.contains("configure"));
            assert_eq!(bills, role["metadata"]["name"] == "ems-bots-billing");
            assert_eq!(configures, role["metadata"]["name"] == "ems-bots-platform");
        }
    }
    let bound = render(EVERYTHING);
    let subjects = &find(&bound, "ClusterRoleBinding", "ems-bots-billing")["subjects"];
    assert_eq!(subjects[0]["name"], "billing");
    assert_eq!(subjects[1], json!({"kind": "ServiceAccount", "name": "billing", "namespace": "billing"}));
    assert!(
        render(&[])
            .iter()
            .all(|d| d["kind"] != "ClusterRoleBinding" || d["metadata"]["name"] != "ems-bots-billing")
    );
}

#[test]
fn the_notes_name_the_next_steps() {
    let notes = fs::read_to_string(root().join("charts/ems-bots/templates/NOTES.txt")).unwrap();
    for words in
        ["rolebinding ems-bots", "ems-bots-homeserver", "ems-bots-database", "ems.element.io/homeserver"]
    {
        assert!(notes.contains(words), "{words}");
    }
}

#[test]
fn one_replica_has_no_disruption_budget() {
    let documents = render(&["operator.replicas=1"]);
    assert!(
        documents.iter().all(|document| document["kind"] != "PodDisruptionBudget"),
        "it would block every drain"
    );
}

#[test]
fn files_of_the_chart_are_links_to_the_generated_ones() {
    for plural in ["adminbots", "auditbots"] {
        let link: PathBuf = root().join(format!("charts/ems-bots/files/crds/{plural}.yaml"));
        assert_eq!(
            fs::canonicalize(link).unwrap(),
            fs::canonicalize(root().join(format!("crds/{plural}.yaml"))).unwrap()
        );
    }
}

fn console_environment(documents: &[Value]) -> BTreeMap<String, Value> {
    let pod = &find(documents, "Deployment", "ems-bots-console")["spec"]["template"]["spec"];
    let variables = pod["containers"][0]["env"].as_array().unwrap();
    variables.iter().map(|one| (one["name"].as_str().unwrap().to_owned(), one["value"].clone())).collect()
}

#[test]
fn without_a_console_nothing_of_it_is_there() {
    for document in render(&[]) {
        let text = document.to_string();
        let is_schema = document["kind"] == "CustomResourceDefinition";
        assert!(is_schema || !text.contains("ems-bots-console"), "{text}");
    }
}

#[test]
fn the_console_knows_every_setting_of_the_chart() {
    let output = Command::new(env!("CARGO_BIN_EXE_ems-bots")).args(["console", "--help"]).output().unwrap();
    let help = String::from_utf8_lossy(&output.stdout);
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    for settings in [&[EVERYTHING], FOREIGN_CERTIFICATE].concat() {
        for name in console_environment(&render(settings)).keys() {
            assert!(help.contains(&format!("[env: {name}")), "{name} does nothing: {help}");
        }
    }
}

#[test]
fn the_consoles_pod_is_restricted_probed_and_never_the_last_one() {
    let documents = render(EVERYTHING);
    let deployment = find(&documents, "Deployment", "ems-bots-console");
    assert_eq!(deployment["spec"]["replicas"], 2);
    assert_eq!(deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"], 0);
    let template = &deployment["spec"]["template"];
    let pod = &template["spec"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    let container = &pod["containers"][0];
    let security = &container["securityContext"];
    assert_eq!(security["allowPrivilegeEscalation"], false);
    assert_eq!(security["readOnlyRootFilesystem"], true);
    assert_eq!(security["capabilities"], json!({"drop": ["ALL"]}));
    for (probe, path) in
        [("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")]
    {
        assert_eq!(container[probe]["httpGet"], json!({"path": path, "port": "http"}), "{probe}");
    }
    assert!(container["resources"]["limits"]["memory"].is_string());
    let volumes: BTreeSet<&str> =
        pod["volumes"].as_array().unwrap().iter().filter_map(|volume| volume["name"].as_str()).collect();
    let mounts: BTreeSet<&str> = container["volumeMounts"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|mount| mount["name"].as_str())
        .collect();
    assert_eq!(volumes, mounts);
    let labels = &template["metadata"]["labels"];
    for (kind, name, path) in [
        ("Deployment", "ems-bots-console", "/spec/selector/matchLabels"),
        ("Service", "ems-bots-console", "/spec/selector"),
        ("Service", "ems-bots-console-metrics", "/spec/selector"),
        ("PodDisruptionBudget", "ems-bots-console", "/spec/selector/matchLabels"),
        ("NetworkPolicy", "ems-bots-console", "/spec/podSelector/matchLabels"),
    ] {
        let selector = find(&documents, kind, name).pointer(path).unwrap().as_object().unwrap();
        assert!(!selector.is_empty() && selector.iter().all(|(key, value)| labels[key] == *value), "{kind}");
    }
    let operator = &find(&documents, "Deployment", "ems-bots-operator")["spec"]["selector"]["matchLabels"];
    assert!(operator.as_object().unwrap().iter().any(|(key, value)| labels[key] != *value), "told apart");
}

#[test]
fn the_intake_can_be_closed_to_all_but_the_api_server() {
    let ingress = |settings: &[&str]| {
        let documents = render(settings);
        let policy = &find(&documents, "NetworkPolicy", "ems-bots-console")["spec"];
        let rules = policy["ingress"].as_array().unwrap().clone();
        rules.into_iter().find(|rule| rule["ports"][0]["port"] == 8443).unwrap()
    };
    let open = ingress(&["console.enabled=true", "networkPolicy.enabled=true"]);
    assert!(open.get("from").is_none(), "{open}");
    assert_eq!(ingress(EVERYTHING)["from"], json!([{"ipBlock": {"cidr": "10.0.0.10/32"}}]));
}

#[test]
fn the_webhook_is_asked_about_bots_and_by_nobody_about_their_status() {
    let documents = render(&["console.enabled=true"]);
    let webhooks = find(&documents, "ValidatingWebhookConfiguration", "ems-bots-console")["webhooks"].clone();
    let webhook = &webhooks[0];
    assert_eq!(webhooks.as_array().unwrap().len(), 1, "the console says the certificate of exactly one");
    assert_eq!(webhook["name"], "bots.ems.element.io");
    assert_eq!(webhook["failurePolicy"], "Ignore");
    assert_eq!(webhook["sideEffects"], "NoneOnDryRun");
    assert_eq!(webhook["rules"][0]["resources"], json!(["adminbots", "auditbots"]));
    assert_eq!(webhook["rules"][0]["operations"], json!(["CREATE", "UPDATE", "DELETE"]));
    let condition = webhook["matchConditions"][0]["expression"].as_str().unwrap();
    assert!(condition.contains("system:serviceaccount:ems-bots-system:ems-bots-operator"), "{condition}");
    assert!(webhook["clientConfig"].get("caBundle").is_none(), "an upgrade must not take it away");
    let strict = render(&["console.enabled=true", "console.failurePolicy=\"Fail\""]);
    let strict = find(&strict, "ValidatingWebhookConfiguration", "ems-bots-console");
    assert_eq!(strict["webhooks"][0]["failurePolicy"], "Fail");
}

#[test]
fn the_console_may_read_no_secret_of_a_tenant() {
    for settings in [&[EVERYTHING], FOREIGN_CERTIFICATE].concat() {
        let documents = render(settings);
        let everywhere = rights(find(&documents, "ClusterRole", "ems-bots-console"));
        assert!(everywhere.keys().all(|(_, resource)| resource != "secrets"));
        let own = find(&documents, "Role", "ems-bots-console");
        for rule in own["rules"].as_array().unwrap() {
            assert!(rule["resourceNames"].is_array(), "{rule}");
        }
    }
    let foreign = render(FOREIGN_CERTIFICATE[0]);
    assert!(rights(find(&foreign, "Role", "ems-bots-console")).keys().all(|(_, kind)| kind != "secrets"));
    // It does not have to change its webhook, so it cannot have it asked about Secrets.
    let everywhere = rights(find(&foreign, "ClusterRole", "ems-bots-console"));
    assert!(everywhere.keys().all(|(group, _)| group == "ems.element.io"), "{everywhere:?}");
    let annotations =
        &find(&foreign, "ValidatingWebhookConfiguration", "ems-bots-console")["metadata"]["annotations"];
    assert_eq!(annotations["cert-manager.io/inject-ca-from"], "ems-bots-system/ems-bots-console");
    assert_eq!(
        find(&foreign, "Certificate", "ems-bots-console")["spec"]["issuerRef"],
        json!({"name": "one"})
    );
}

#[test]
fn the_consoles_certificate_survives_upgrades_and_another_installation() {
    let documents = render(EVERYTHING);
    let secret = find(&documents, "Secret", "ems-bots-console-tls");
    for part in ["data", "stringData", "type", "immutable"] {
        assert!(secret.get(part).is_none(), "an upgrade would set {part}");
    }
    assert_eq!(secret["metadata"]["annotations"], json!({"helm.sh/resource-policy": "keep"}));
    for settings in FOREIGN_CERTIFICATE {
        assert!(render(settings).iter().all(|document| document["kind"] != "Secret"));
    }
}

#[test]
fn the_console_knows_which_secrets_are_its_own() {
    for settings in [&[EVERYTHING], FOREIGN_CERTIFICATE].concat() {
        let documents = render(settings);
        let pod = &find(&documents, "Deployment", "ems-bots-console")["spec"]["template"]["spec"];
        let volumes = pod["volumes"].as_array().unwrap().iter();
        let mut used: BTreeSet<&str> =
            volumes.filter_map(|volume| volume["secret"]["secretName"].as_str()).collect();
        if documents.iter().any(|document| document["kind"] == "Secret") {
            used.insert("ems-bots-console-tls");
        }
        let said = console_environment(&documents)["EMS_CONSOLE_SECRETS"].clone();
        assert_eq!(said.as_str().unwrap().split(',').collect::<BTreeSet<_>>(), used);
    }
}

/// Whether the webhook is asked, as the API server finds out.
fn is_asked(condition: &str, user: &str, old: &Value, new: &Value) -> bool {
    let operation = if old.is_null() { "CREATE" } else { "UPDATE" };
    let mut context = cel::Context::default();
    context.add_variable("request", json!({"operation": operation, "userInfo": {"username": user}})).unwrap();
    context.add_variable("object", new).unwrap();
    context.add_variable("oldObject", old).unwrap();
    let value = cel::Program::compile(condition).unwrap().execute(&context).unwrap();
    value == cel::Value::Bool(true)
}

#[test]
fn finalizers_of_the_operator_wait_for_no_console() {
    let documents = render(&["console.enabled=true", "console.failurePolicy=\"Fail\""]);
    let webhook = &find(&documents, "ValidatingWebhookConfiguration", "ems-bots-console")["webhooks"][0];
    let condition = webhook["matchConditions"][0]["expression"].as_str().unwrap();
    let bot = |suspend: bool, finalizers: &[&str]| json!({"metadata": {"finalizers": finalizers}, "spec": {"suspend": suspend, "rooms": {"deny": ["!a"]}}});
    let (free, held) = (bot(false, &[]), bot(false, &["ems.element.io/cleanup"]));
    let operator = "system:serviceaccount:ems-bots-system:ems-bots-operator";
    for user in [operator, "system:serviceaccount:kube-system:generic-garbage-collector"] {
        assert!(!is_asked(condition, user, &free, &held), "{user}");
        assert!(!is_asked(condition, user, &held, &free), "{user}");
        assert!(is_asked(condition, user, &held, &bot(true, &[])), "{user} does something else");
        assert!(is_asked(condition, user, &Value::Null, &free), "{user} creates one");
    }
    for part in ["labels", "annotations", "ownerReferences"] {
        let mut marked = free.clone();
        marked["metadata"][part] =
            if part == "ownerReferences" { json!([{"uid": "x"}]) } else { json!({"a": "b"}) };
        assert!(is_asked(condition, operator, &held, &marked), "{part} come along");
        assert!(is_asked(condition, operator, &marked, &held), "{part} go along");
        let mut both = held.clone();
        both["metadata"][part] = marked["metadata"][part].clone();
        assert!(!is_asked(condition, operator, &marked, &both), "{part} stay as they are");
        both["metadata"][part] = json!(["another"]);
        assert!(is_asked(condition, operator, &marked, &both), "{part} change along");
    }
    assert!(is_asked(condition, "alice", &held, &free), "she removes the finalizer");
    assert!(is_asked(condition, "system:serviceaccount:billing:billing", &free, &bot(true, &[])));
}
