//! What the worker's pod mounts. The worker never sees the database owner's password; only the
//! init container does.

use k8s_openapi::{
    api::core::v1::{
        ConfigMapProjection, ConfigMapVolumeSource, DownwardAPIProjection, DownwardAPIVolumeFile,
        EmptyDirVolumeSource, KeyToPath, ObjectFieldSelector, PersistentVolumeClaimVolumeSource,
        ProjectedVolumeSource, SecretProjection, SecretVolumeSource, ServiceAccountTokenProjection, Volume,
        VolumeMount, VolumeProjection,
    },
    apimachinery::pkg::api::resource::Quantity,
};

use crate::{
    crd::common::CaSecretRef,
    operator::validate::{GivenRole, Validated, Workload},
};

/// Readable by the group of the pod only.
const MODE: i32 = 0o440;
const ETC: &str = "/etc/ems-bots";

/// A volume and where it is mounted.
struct Mounted {
    volume: Volume,
    path: String,
    writable: bool,
}

/// Volumes of the pod, mounts of the worker, mounts of the init container.
pub(super) struct Volumes {
    pub(super) volumes: Vec<Volume>,
    pub(super) worker: Vec<VolumeMount>,
    pub(super) migrate: Vec<VolumeMount>,
}

pub(super) fn volumes(bot: &Validated, workload: &Workload) -> Volumes {
    let names = &bot.names;
    // Its password is also the key by which the worker knows the messages of the inbox.
    let inbox = projection(names.database_roles(), &[("inbox-password", "inbox-password")]);
    let mut worker = vec![
        secret("account", names.account(), &["username", "password", "device-prefix"]),
        secret("backup-phrase", names.backup_phrase(), &["phrase"]),
        secret("admin", names.admin_token(), &["access-token", "user-id"]),
        secret("database", workload.database_secret.clone(), &["host", "port", "dbname"]),
        projected("database-roles", vec![role("writer", workload.writer.as_ref(), bot), inbox.clone()]),
        trail(bot),
        data(bot),
        scratch(),
        token(),
    ];
    worker.extend(certificates("homeserver-ca", bot.homeserver_ca.as_ref()));
    worker.extend(certificates("database-ca", workload.database_ca.as_ref()));
    if let Some(bucket) = &workload.bucket {
        let keys = ["access-key-id", "secret-access-key"];
        worker.push(secret("media-bucket", bucket.spec.secret_ref.name.clone(), &keys));
        worker.extend(certificates("media-bucket-ca", bucket.spec.ca_secret_ref.as_ref()));
    }
    let mut roles = vec![
        role("writer", workload.writer.as_ref(), bot),
        role("reader", workload.reader.as_ref(), bot),
        inbox,
    ];
    roles.extend(workload.eraser.as_ref().map(|eraser| role("eraser", Some(eraser), bot)));
    let mut migrate = vec![
        secret(
            "database-owner",
            workload.database_secret.clone(),
            &["host", "port", "dbname", "username", "password"],
        ),
        Mounted { path: format!("{ETC}/database-roles"), ..projected("all-database-roles", roles) },
    ];
    let shared: Vec<VolumeMount> =
        worker.iter().filter(|mounted| mounted.volume.name == "database-ca").map(mount).collect();
    let mounts = |list: &[Mounted]| list.iter().map(mount).collect::<Vec<_>>();
    let (worker_mounts, mut migrate_mounts) = (mounts(&worker), mounts(&migrate));
    migrate_mounts.extend(shared);
    worker.append(&mut migrate);
    Volumes {
        volumes: worker.into_iter().map(|mounted| mounted.volume).collect(),
        worker: worker_mounts,
        migrate: migrate_mounts,
    }
}

fn mount(mounted: &Mounted) -> VolumeMount {
    VolumeMount {
        name: mounted.volume.name.clone(),
        mount_path: mounted.path.clone(),
        read_only: (!mounted.writable).then_some(true),
        ..VolumeMount::default()
    }
}

fn items(keys: &[(&str, &str)]) -> Option<Vec<KeyToPath>> {
    let item = |&(key, path): &(&str, &str)| KeyToPath { key: key.into(), path: path.into(), mode: None };
    Some(keys.iter().map(item).collect())
}

fn secret(name: &str, secret: String, keys: &[&str]) -> Mounted {
    let keys: Vec<(&str, &str)> = keys.iter().map(|key| (*key, *key)).collect();
    Mounted {
        volume: Volume {
            name: name.to_owned(),
            secret: Some(SecretVolumeSource {
                secret_name: Some(secret),
                default_mode: Some(MODE),
                items: items(&keys),
                optional: None,
            }),
            ..Volume::default()
        },
        path: format!("{ETC}/{name}"),
        writable: false,
    }
}

fn projected(name: &str, sources: Vec<VolumeProjection>) -> Mounted {
    Mounted {
        volume: Volume {
            name: name.to_owned(),
            projected: Some(ProjectedVolumeSource { default_mode: Some(MODE), sources: Some(sources) }),
            ..Volume::default()
        },
        path: format!("{ETC}/{name}"),
        writable: false,
    }
}

fn projection(secret: String, keys: &[(&str, &str)]) -> VolumeProjection {
    VolumeProjection {
        secret: Some(SecretProjection { name: secret, items: items(keys), optional: None }),
        ..VolumeProjection::default()
    }
}

/// `<role>-password`, and `<role>-username` of a role that was given.
fn role(role: &str, given: Option<&GivenRole>, bot: &Validated) -> VolumeProjection {
    let password = format!("{role}-password");
    match given {
        Some(given) => projection(
            given.secret.clone(),
            &[("username", &format!("{role}-username")), ("password", &password)],
        ),
        None => projection(bot.names.database_roles(), &[(&password, &password)]),
    }
}

fn certificates(name: &str, ca: Option<&CaSecretRef>) -> Option<Mounted> {
    let ca = ca?;
    let mut mounted = secret(name, ca.name.clone(), &[]);
    if let Some(source) = &mut mounted.volume.secret {
        source.items = items(&[(&ca.key, "ca.crt")]);
    }
    Some(mounted)
}

/// Where the trail stood, if anybody remembers.
fn trail(bot: &Validated) -> Mounted {
    Mounted {
        volume: Volume {
            name: "trail".to_owned(),
            config_map: Some(ConfigMapVolumeSource {
                name: bot.names.trail(),
                optional: Some(true),
                default_mode: Some(MODE),
                items: None,
            }),
            ..Volume::default()
        },
        path: format!("{ETC}/trail"),
        writable: false,
    }
}

fn data(bot: &Validated) -> Mounted {
    Mounted {
        volume: Volume {
            name: "data".to_owned(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: bot.names.worker_data(),
                read_only: None,
            }),
            ..Volume::default()
        },
        path: "/var/lib/ems-bots".to_owned(),
        writable: true,
    }
}

fn scratch() -> Mounted {
    Mounted {
        volume: Volume {
            name: "tmp".to_owned(),
            empty_dir: Some(EmptyDirVolumeSource {
                size_limit: Some(Quantity("64Mi".to_owned())),
                medium: None,
            }),
            ..Volume::default()
        },
        path: "/tmp".to_owned(),
        writable: true,
    }
}

/// What the `ServiceAccount` would mount by itself, in this container alone.
fn token() -> Mounted {
    let token = VolumeProjection {
        service_account_token: Some(ServiceAccountTokenProjection {
            path: "token".to_owned(),
            expiration_seconds: Some(3600),
            audience: None,
        }),
        ..VolumeProjection::default()
    };
    let authority = VolumeProjection {
        config_map: Some(ConfigMapProjection {
            name: "kube-root-ca.crt".to_owned(),
            items: items(&[("ca.crt", "ca.crt")]),
            optional: None,
        }),
        ..VolumeProjection::default()
    };
    let namespace = VolumeProjection {
        downward_api: Some(DownwardAPIProjection {
            items: Some(vec![DownwardAPIVolumeFile {
                path: "namespace".to_owned(),
                field_ref: Some(ObjectFieldSelector {
                    field_path: "metadata.namespace".to_owned(),
                    api_version: Some("v1".to_owned()),
                }),
                ..DownwardAPIVolumeFile::default()
            }]),
        }),
        ..VolumeProjection::default()
    };
    Mounted {
        path: "/var/run/secrets/kubernetes.io/serviceaccount".to_owned(),
        ..projected("kubernetes", vec![token, authority, namespace])
    }
}
