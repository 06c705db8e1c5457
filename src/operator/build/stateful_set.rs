//! The worker's workload: one pod, never two.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::{StatefulSet, StatefulSetSpec},
        core::v1::{LocalObjectReference, PodSpec, PodTemplateSpec},
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};

use super::{metadata, pod, volumes::volumes};
use crate::operator::{
    context::Settings,
    labels,
    validate::{Validated, Workload},
};

pub(super) fn stateful_set(
    bot: &Validated,
    workload: &Workload,
    settings: &Settings,
    secrets_hash: &str,
) -> StatefulSet {
    let template = PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(labels::labels(bot.kind, &bot.name, bot.names.base())),
            annotations: Some(BTreeMap::from([(labels::SECRETS_HASH.to_owned(), secrets_hash.to_owned())])),
            ..ObjectMeta::default()
        }),
        spec: Some(pod_spec(bot, workload, settings)),
    };
    StatefulSet {
        metadata: metadata(bot, bot.names.worker()),
        spec: Some(StatefulSetSpec {
            replicas: Some(1),
            service_name: Some(bot.names.worker()),
            selector: LabelSelector {
                match_labels: Some(labels::selector(bot.kind, &bot.name)),
                match_expressions: None,
            },
            // With the other policy a pod that never gets ready is not replaced by a better one.
            pod_management_policy: Some("Parallel".to_owned()),
            revision_history_limit: Some(3),
            template,
            ..StatefulSetSpec::default()
        }),
        status: None,
    }
}

fn pod_spec(bot: &Validated, workload: &Workload, settings: &Settings) -> PodSpec {
    let volumes = volumes(bot, workload);
    let scheduling = workload.spec.scheduling.clone().unwrap_or_default();
    let pull_secrets: Vec<LocalObjectReference> =
        settings.image_pull_secrets.iter().map(|name| LocalObjectReference { name: name.clone() }).collect();
    PodSpec {
        service_account_name: Some(bot.names.worker()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        security_context: Some(pod::security()),
        termination_grace_period_seconds: Some(30),
        image_pull_secrets: (!pull_secrets.is_empty()).then_some(pull_secrets),
        init_containers: Some(vec![pod::migrate(bot, workload, settings, volumes.migrate)]),
        containers: vec![pod::worker(bot, workload, settings, volumes.worker)],
        volumes: Some(volumes.volumes),
        node_selector: (!scheduling.node_selector.is_empty()).then_some(scheduling.node_selector),
        tolerations: (!scheduling.tolerations.is_empty()).then_some(scheduling.tolerations),
        affinity: scheduling.affinity,
        priority_class_name: scheduling.priority_class_name,
        ..PodSpec::default()
    }
}
