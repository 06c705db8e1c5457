//! Containers of the worker's pod.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        Capabilities, Container, ContainerPort, EnvVar, HTTPGetAction, PodSecurityContext, Probe,
        ResourceRequirements, SeccompProfile, SecurityContext, VolumeMount,
    },
    apimachinery::pkg::{api::resource::Quantity, util::intstr::IntOrString},
};

use super::HTTP_PORT;
use crate::{
    crd::common::{ResourceAmounts, WorkerResources},
    operator::{
        context::Settings,
        validate::{GivenBucket, Validated, Workload},
    },
};

/// The user and group of the image.
const USER: i64 = 65532;

/// Security of the whole pod: the `restricted` standard.
pub(super) fn security() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(USER),
        run_as_group: Some(USER),
        fs_group: Some(USER),
        fs_group_change_policy: Some("OnRootMismatch".to_owned()),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
        ..PodSecurityContext::default()
    }
}

fn container_security() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        run_as_non_root: Some(true),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
        ..SecurityContext::default()
    }
}

/// Runs the migrations as the database's owner and says in one sentence why they failed.
pub(super) fn migrate(
    bot: &Validated,
    workload: &Workload,
    settings: &Settings,
    mounts: Vec<VolumeMount>,
) -> Container {
    Container {
        args: Some(vec!["migrate".to_owned()]),
        termination_message_path: Some("/dev/termination-log".to_owned()),
        termination_message_policy: Some("File".to_owned()),
        ..container("migrate", bot, workload, settings, mounts)
    }
}

/// Works for the bot.
pub(super) fn worker(
    bot: &Validated,
    workload: &Workload,
    settings: &Settings,
    mounts: Vec<VolumeMount>,
) -> Container {
    let probe = |path: &str, period: i32, failures: i32| Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String("http".to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        timeout_seconds: Some(5),
        failure_threshold: Some(failures),
        ..Probe::default()
    };
    let base = container("worker", bot, workload, settings, mounts);
    Container {
        args: Some(vec!["worker".to_owned()]),
        env: Some(base.env.into_iter().flatten().chain(bucket(workload)).collect()),
        ports: Some(vec![ContainerPort {
            name: Some("http".to_owned()),
            container_port: HTTP_PORT,
            protocol: Some("TCP".to_owned()),
            ..ContainerPort::default()
        }]),
        startup_probe: Some(probe("/livez", 1, 60)),
        liveness_probe: Some(probe("/livez", 20, 6)),
        readiness_probe: Some(probe("/readyz", 5, 2)),
        ..base
    }
}

fn container(
    name: &str,
    bot: &Validated,
    workload: &Workload,
    settings: &Settings,
    mounts: Vec<VolumeMount>,
) -> Container {
    Container {
        name: name.to_owned(),
        image: Some(settings.worker_image.clone()),
        image_pull_policy: settings.image_pull_policy.clone(),
        env: Some(environment(bot, workload)),
        resources: Some(resources(workload.spec.resources.as_ref())),
        security_context: Some(container_security()),
        volume_mounts: Some(mounts),
        ..Container::default()
    }
}

/// Nothing secret: whoever may read pods reads this.
fn environment(bot: &Validated, workload: &Workload) -> Vec<EnvVar> {
    let mut variables = vec![
        ("EMS_BOT_KIND", bot.kind.slug().to_owned()),
        ("EMS_BOT_NAMESPACE", bot.namespace.clone()),
        ("EMS_BOT_NAME", bot.name.clone()),
        ("EMS_SERVER_NAME", bot.server_name.to_string()),
        ("EMS_HOMESERVER_URL", bot.homeserver_url.to_string()),
        ("EMS_DATABASE_SCHEMA", workload.schema.clone()),
        // The worker's image may be another one: both versions belong in the trail.
        ("EMS_OPERATOR_VERSION", env!("CARGO_PKG_VERSION").to_owned()),
    ];
    if let Some(proxy) = &workload.spec.proxy {
        variables.push(("EMS_PROXY_URL", proxy.url.clone()));
        variables.push(("EMS_NO_PROXY", proxy.no_proxy.join(",")));
    }
    variables.into_iter().map(variable).collect()
}

fn variable((name, value): (&str, String)) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value), value_from: None }
}

/// Where attachments go; from here and not from the custom resource, since here it was checked.
fn bucket(workload: &Workload) -> Vec<EnvVar> {
    let Some(GivenBucket { spec, .. }) = &workload.bucket else { return Vec::new() };
    let mut variables = vec![
        ("EMS_MEDIA_BUCKET_ENDPOINT", spec.endpoint.clone()),
        ("EMS_MEDIA_BUCKET_NAME", spec.name.clone()),
        ("EMS_MEDIA_BUCKET_REGION", spec.region.clone()),
    ];
    variables.extend(spec.prefix.clone().map(|prefix| ("EMS_MEDIA_BUCKET_PREFIX", prefix)));
    variables.into_iter().map(variable).collect()
}

fn resources(spec: Option<&WorkerResources>) -> ResourceRequirements {
    let amounts = |given: Option<&ResourceAmounts>, cpu: Option<&str>, memory: &str| {
        let cpu = given.and_then(|given| given.cpu.as_deref()).or(cpu);
        let memory = given.and_then(|given| given.memory.as_deref()).unwrap_or(memory);
        let mut amounts = BTreeMap::from([("memory".to_owned(), Quantity(memory.to_owned()))]);
        amounts.extend(cpu.map(|cpu| ("cpu".to_owned(), Quantity(cpu.to_owned()))));
        amounts
    };
    let requests = amounts(spec.and_then(|spec| spec.requests.as_ref()), Some("50m"), "128Mi");
    let mut limits = amounts(spec.and_then(|spec| spec.limits.as_ref()), None, "1Gi");
    // A request above the default limit would be refused.
    for (name, request) in &requests {
        if let Some(limit) = limits.get_mut(name)
            && crate::kube_util::quantity(&request.0) > crate::kube_util::quantity(&limit.0)
        {
            *limit = request.clone();
        }
    }
    ResourceRequirements { requests: Some(requests), limits: Some(limits), claims: None }
}
