use serde_json::{Value, json};

use super::*;
use crate::{
    crd::{AdminBot, AuditBot, Bot},
    operator::{
        dereference::Found,
        fixtures::{bot, found, names, secret, settings},
        validate::validate,
    },
};

fn built<B: Bot>(spec: &Value, found: &Found) -> Resources {
    let valid = validate(&bot::<B>(spec), &names::<B>(), found, &[]).unwrap();
    let workload = valid.workload.clone().unwrap();
    build(&valid, &workload, &settings(), "0123456789abcdef")
}

macro_rules! snapshots {
    ($name:literal, $resources:expr) => {{
        let Resources { service_account, role, role_binding, network_policy, service, volume, stateful_set } =
            $resources;
        insta::assert_yaml_snapshot!(concat!($name, "-service-account"), service_account);
        insta::assert_yaml_snapshot!(concat!($name, "-role"), role);
        insta::assert_yaml_snapshot!(concat!($name, "-role-binding"), role_binding);
        insta::assert_yaml_snapshot!(concat!($name, "-network-policy"), network_policy);
        insta::assert_yaml_snapshot!(concat!($name, "-service"), service);
        insta::assert_yaml_snapshot!(concat!($name, "-volume"), volume);
        insta::assert_yaml_snapshot!(concat!($name, "-stateful-set"), stateful_set);
    }};
}

#[test]
fn objects_of_the_smallest_bot() {
    snapshots!("smallest", built::<AdminBot>(&json!({}), &found()));
}

#[test]
fn objects_of_a_bot_with_every_wish() {
    let spec = json!({
        "homeserver": {"caSecretRef": {"name": "homeserver-ca", "key": "root.pem"}},
        "database": {"caSecretRef": {"name": "database-ca"}, "schema": "trail",
            "writer": {"secretRef": {"name": "writer"}}, "reader": {"secretRef": {"name": "reader"}},
            "eraser": {"secretRef": {"name": "eraser"}}},
        "media": {"mode": "Content", "bucket": {"endpoint": "https://s3.example.org:9443", "name": "attachments",
            "region": "eu-central-1", "prefix": "audit/example.org", "secretRef": {"name": "bucket"},
            "caSecretRef": {"name": "bucket-ca"}}},
        "worker": {
            "resources": {"requests": {"cpu": "1", "memory": "2Gi"}},
            "storage": {"size": "5Gi", "storageClassName": "fast"},
            "scheduling": {"nodeSelector": {"pool": "bots"}, "priorityClassName": "high",
                "tolerations": [{"key": "dedicated", "operator": "Exists"}]},
            "proxy": {"url": "http://proxy:3128", "noProxy": ["db", "10.0.0.0/8"]},
        },
    });
    let role = |name: &str| Some(secret(name, &["username=u", "password=p"]));
    let found = Found {
        homeserver_ca: Some(secret("homeserver-ca", &["root.pem=PEM"])),
        database_ca: Some(secret("database-ca", &["ca.crt=PEM"])),
        writer: role("writer"),
        reader: role("reader"),
        eraser: role("eraser"),
        bucket: Some(secret("bucket", &["access-key-id=i", "secret-access-key=s"])),
        bucket_ca: Some(secret("bucket-ca", &["ca.crt=PEM"])),
        ..found()
    };
    snapshots!("everything", built::<AuditBot>(&spec, &found));
}

#[test]
fn the_worker_never_sees_the_owner_of_the_database() {
    let stateful_set = built::<AuditBot>(&json!({}), &found()).stateful_set;
    let pod = stateful_set.spec.unwrap().template.spec.unwrap();
    let volumes = pod.volumes.unwrap();
    let with_owner = |volume: &str| {
        let found = volumes.iter().find(|v| v.name == volume).unwrap();
        serde_json::to_string(found).unwrap().contains("\"password\"") && volume != "account"
    };
    for mount in pod.containers[0].volume_mounts.as_ref().unwrap() {
        assert!(!with_owner(&mount.name), "{}", mount.name);
    }
    let init = &pod.init_containers.unwrap()[0];
    assert!(init.volume_mounts.as_ref().unwrap().iter().any(|mount| with_owner(&mount.name)));
    assert!(
        !init.volume_mounts.as_ref().unwrap().iter().any(|mount| mount.name == "kubernetes"),
        "the init container has no business with the API server"
    );
}

#[test]
fn only_the_worker_knows_the_bucket() {
    let spec = json!({"media": {"bucket": {"endpoint": "https://s3.example.org:9443", "name": "attachments",
        "prefix": "audit/example.org", "secretRef": {"name": "bucket"}}}});
    let bucket = Some(secret("bucket", &["access-key-id=i", "secret-access-key=s"]));
    let stateful_set = built::<AuditBot>(&spec, &Found { bucket, ..found() }).stateful_set;
    let pod = stateful_set.spec.unwrap().template.spec.unwrap();
    let names = |container: &k8s_openapi::api::core::v1::Container| {
        serde_json::to_string(container).unwrap().matches("media-bucket").count()
            + serde_json::to_string(container).unwrap().matches("EMS_MEDIA_BUCKET").count()
    };
    assert_eq!(
        names(&pod.containers[0]),
        6,
        "a volume at a path, and where, which, in which region, and below what"
    );
    assert_eq!(names(&pod.init_containers.unwrap()[0]), 0);
}

#[test]
fn every_container_is_restricted() {
    let pod = built::<AuditBot>(&json!({}), &found()).stateful_set.spec.unwrap().template.spec.unwrap();
    assert_eq!(pod.automount_service_account_token, Some(false));
    let security = pod.security_context.unwrap();
    assert_eq!((security.run_as_non_root, security.run_as_user), (Some(true), Some(65532)));
    assert_eq!(security.seccomp_profile.unwrap().type_, "RuntimeDefault");
    for container in pod.containers.iter().chain(pod.init_containers.iter().flatten()) {
        let security = container.security_context.as_ref().unwrap();
        assert_eq!(security.read_only_root_filesystem, Some(true));
        assert_eq!(security.allow_privilege_escalation, Some(false));
        assert_eq!(security.capabilities.as_ref().unwrap().drop.as_ref().unwrap(), &["ALL"]);
        assert!(container.resources.as_ref().unwrap().limits.as_ref().unwrap().contains_key("memory"));
    }
}

#[test]
fn the_hash_changes_with_every_secret_and_says_nothing_without_the_key() {
    let key = SecretString::from("key");
    let (one, other) = (secret("s", &["a=1"]), secret("s", &["a=2"]));
    let hash = secrets_hash(&key, &[Some(&one), None]);
    assert_ne!(hash, secrets_hash(&key, &[Some(&other), None]));
    assert_ne!(hash, secrets_hash(&SecretString::from("other"), &[Some(&one), None]));
    assert_eq!(hash, secrets_hash(&key, &[Some(&one)]));
    assert_ne!(
        secrets_hash(&key, &[Some(&secret("s", &["ab=c"]))]),
        secrets_hash(&key, &[Some(&secret("s", &["a=bc"]))])
    );
}
