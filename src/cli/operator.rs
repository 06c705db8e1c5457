//! `ems-bots operator`: the process that makes clusters and homeservers what the custom resources say.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context as _;
use k8s_openapi::{api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use prometheus::Registry;
use serde_json::{Value, json};

use crate::{
    crd::convert::duration,
    homeserver::{
        Connect, HomeserverError,
        synapse::{Connection, Settings as HomeserverSettings},
    },
    kube_util::{lease::LeaseConfig, readiness::Readiness},
    lifecycle::Lifecycle,
    operator::{
        ConnectFactory, HomeserverTarget, Settings,
        metrics::Metrics,
        run::{LEASE, Operator},
    },
    telemetry::{Health, init_logging, serve},
};

/// ConfigMap in which the operator says what it runs with.
pub(super) const CONFIGURATION: &str = "ems-bots-operator-configuration";

/// Arguments of `ems-bots operator`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Namespace of this pod; the lease lives there.
    #[arg(long, env = "EMS_POD_NAMESPACE", default_value = "ems-bots")]
    pod_namespace: String,
    /// Name of this pod; the lease's holder.
    #[arg(long, env = "EMS_POD_NAME")]
    pod_name: String,
    /// Name of the operator's `ServiceAccount`, for the commands that conditions print.
    #[arg(long, env = "EMS_SERVICE_ACCOUNT", default_value = "ems-bots-operator")]
    service_account: String,
    /// Name of the console's `ServiceAccount` in the same namespace: it may put records into trails. Without one
    /// nobody may.
    #[arg(long, env = "EMS_CONSOLE_SERVICE_ACCOUNT")]
    console_service_account: Option<String>,
    /// Name of the lease.
    #[arg(long, env = "EMS_LEASE_NAME", default_value = "ems-bots-operator")]
    lease_name: String,
    /// Image of the workers.
    #[arg(long, env = "EMS_WORKER_IMAGE")]
    worker_image: String,
    /// Pull policy of the workers' image.
    #[arg(long, env = "EMS_WORKER_IMAGE_PULL_POLICY", value_parser = ["Always", "IfNotPresent", "Never"])]
    image_pull_policy: Option<String>,
    /// Pull Secrets of the workers' image, by name in the tenants' namespaces.
    #[arg(long = "image-pull-secret", env = "EMS_WORKER_IMAGE_PULL_SECRETS", value_delimiter = ',')]
    image_pull_secrets: Vec<String>,
    /// Hosts of Element Web that people may be sent to.
    #[arg(long = "allowed-element-web-host", env = "EMS_ALLOWED_ELEMENT_WEB_HOSTS", value_delimiter = ',')]
    allowed_element_web_hosts: Vec<String>,
    /// Ports of the API server as pods reach it: the workers' network policies let these out.
    #[arg(long = "api-server-port", env = "EMS_API_SERVER_PORTS", value_delimiter = ',', default_values_t = [443, 6443])]
    api_server_ports: Vec<u16>,
    /// More ports that the workers' network policies let out, TCP and UDP.
    #[arg(long = "worker-egress-port", env = "EMS_WORKER_EGRESS_PORTS", value_delimiter = ',')]
    worker_egress_ports: Vec<u16>,
    /// Reconciliations at the same time, per kind.
    #[arg(long, env = "EMS_CONCURRENCY", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: u16,
    /// Change nothing.
    #[arg(long, env = "EMS_PAUSED")]
    paused: bool,
    /// Everything is looked at again after this time, for example 10m.
    #[arg(long, env = "EMS_RESYNC", default_value = "10m", value_parser = parse_duration)]
    resync: Duration,
    /// Address of `/livez`, `/readyz` and `/metrics`.
    #[arg(long, env = "EMS_LISTEN", default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
    /// File with a log filter that is followed while the process runs.
    #[arg(long, env = "EMS_LOG_FILTER_FILE")]
    log_filter_file: Option<PathBuf>,
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    duration(text)
        .filter(|duration| *duration >= Duration::from_secs(10))
        .ok_or_else(|| "must be a whole number followed by s, m, h or d, at least 10s".to_owned())
}

/// Runs the operator until it is asked to end or is no longer the leader.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let filter = init_logging()?;
    let lifecycle = Lifecycle::new();
    let (registry, health) = (Registry::new(), Health::default());
    let metrics = Metrics::new(&registry)?;
    let client = kube::Client::try_default().await.context("cannot find a Kubernetes cluster")?;
    let readiness = Readiness::waiting_for([LEASE]);
    health.waiting(LEASE, "the API server has not answered yet");
    if let Some(file) = args.log_filter_file.clone() {
        tokio::spawn(filter.follow(file, Duration::from_secs(10), lifecycle.soft()));
    }
    lifecycle.spawn("telemetry", serve(args.listen, registry, health.clone(), lifecycle.soft()));
    let started = readiness.clone();
    tokio::spawn(async move {
        started.wait_for(LEASE).await;
        health.ready(LEASE);
    });
    let operator = operator(args, client, metrics, readiness);
    lifecycle.spawn("operator", operator.run(lifecycle.soft()));
    Ok(lifecycle.run_until_shutdown().await?)
}

fn operator(args: Args, client: kube::Client, metrics: Metrics, readiness: Readiness) -> Operator {
    let args_summary = summary(&args);
    let Args {
        pod_namespace,
        pod_name,
        service_account,
        console_service_account,
        lease_name,
        worker_image,
        image_pull_policy,
        image_pull_secrets,
        allowed_element_web_hosts,
        api_server_ports,
        worker_egress_ports,
        concurrency,
        paused,
        resync,
        listen: _,
        log_filter_file: _,
    } = args;
    let configuration = console_service_account
        .as_ref()
        .filter(|name| !name.is_empty())
        .map(|_| configuration(&pod_namespace, &args_summary));
    Operator {
        configuration,
        client,
        connect: connect_factory(),
        metrics,
        lease: LeaseConfig::new(pod_namespace.clone(), lease_name, pod_name),
        settings: Settings {
            worker_image,
            image_pull_policy,
            image_pull_secrets: named(image_pull_secrets),
            allowed_element_web_hosts: named(allowed_element_web_hosts),
            api_server_ports,
            worker_egress_ports,
            paused,
            resync,
            console: console_service_account
                .filter(|name| !name.is_empty())
                .map(|name| (pod_namespace.clone(), name)),
            service_account: (pod_namespace, service_account),
        },
        concurrency,
        readiness,
    }
}

/// What the operator runs with. No secret is among its settings.
fn summary(args: &Args) -> Value {
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "namespace": args.pod_namespace,
        "serviceAccount": args.service_account,
        "consoleServiceAccount": args.console_service_account,
        "workerImage": args.worker_image,
        "imagePullPolicy": args.image_pull_policy,
        "imagePullSecrets": args.image_pull_secrets,
        "allowedElementWebHosts": args.allowed_element_web_hosts,
        "apiServerPorts": args.api_server_ports,
        "workerEgressPorts": args.worker_egress_ports,
        "concurrency": args.concurrency,
        "paused": args.paused,
        "resyncSeconds": args.resync.as_secs(),
    })
}

fn configuration(namespace: &str, summary: &Value) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(CONFIGURATION.to_owned()),
            namespace: Some(namespace.to_owned()),
            labels: Some([("app.kubernetes.io/name".to_owned(), "ems-bots".to_owned())].into()),
            ..ObjectMeta::default()
        },
        data: Some([("configuration".to_owned(), summary.to_string())].into()),
        ..ConfigMap::default()
    }
}

/// An empty variable of the environment means an empty list, not a list of one empty name.
fn named(list: Vec<String>) -> Vec<String> {
    list.into_iter().filter(|name| !name.is_empty()).collect()
}

fn connect_factory() -> ConnectFactory {
    Arc::new(|target: HomeserverTarget| {
        let host = target.url.host_str().unwrap_or_default().to_owned();
        let settings = HomeserverSettings { ca_pem: target.ca_pem, ..HomeserverSettings::new(target.url) };
        match Connection::new(&settings) {
            Ok(connection) => Ok(Arc::new(connection) as Arc<dyn Connect>),
            Err(error) => Err(HomeserverError::Unreachable { host, problem: error.to_string() }),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_resyncs_are_refused() {
        assert_eq!(parse_duration("10m").unwrap(), Duration::from_mins(10));
        assert!(parse_duration("1s").is_err());
        assert!(parse_duration("soon").is_err());
    }
}
