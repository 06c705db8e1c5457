//! The worker's name in the cluster, and whom it may talk to.
//!
//! Homeserver, database, bucket, proxy and API server are hosts whose addresses this program does not
//! know, and a network policy knows no names: what can be limited is the ports. Inwards only the
//! metrics port is open, for whoever scrapes it.

use std::collections::BTreeSet;

use k8s_openapi::{
    api::{
        core::v1::{Service, ServicePort, ServiceSpec},
        networking::v1::{
            NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPort,
            NetworkPolicySpec,
        },
    },
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};

use super::{HTTP_PORT, metadata};
use crate::operator::{
    context::Settings,
    labels,
    validate::{Validated, Workload},
};

const DNS: i32 = 53;

pub(super) fn service(bot: &Validated) -> Service {
    Service {
        metadata: metadata(bot, bot.names.worker()),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            // Metrics of a worker that is not ready are the interesting ones.
            publish_not_ready_addresses: Some(true),
            selector: Some(labels::selector(bot.kind, &bot.name)),
            ports: Some(vec![ServicePort {
                name: Some("http".to_owned()),
                port: HTTP_PORT,
                protocol: Some("TCP".to_owned()),
                target_port: Some(IntOrString::String("http".to_owned())),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

pub(super) fn network_policy(bot: &Validated, workload: &Workload, settings: &Settings) -> NetworkPolicy {
    let port = |protocol: &str, port: i32| NetworkPolicyPort {
        protocol: Some(protocol.to_owned()),
        port: Some(IntOrString::Int(port)),
        end_port: None,
    };
    let mut ports: BTreeSet<u16> = settings.api_server_ports.iter().copied().collect();
    ports.insert(workload.homeserver_port);
    ports.insert(workload.database_port);
    ports.extend(workload.proxy_port);
    ports.extend(workload.bucket.as_ref().map(|bucket| bucket.port));
    // Most network plugins look at the port of the pod behind a Service, which nothing here names.
    let anybody = std::iter::once(DNS).chain(settings.worker_egress_ports.iter().copied().map(i32::from));
    let dns = anybody.flat_map(|number| [port("TCP", number), port("UDP", number)]).collect();
    let servers = ports.into_iter().map(|number| port("TCP", number.into())).collect();
    let egress = |ports: Vec<_>| NetworkPolicyEgressRule { ports: Some(ports), to: None };
    NetworkPolicy {
        metadata: metadata(bot, bot.names.worker()),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(LabelSelector {
                match_labels: Some(labels::selector(bot.kind, &bot.name)),
                match_expressions: None,
            }),
            policy_types: Some(vec!["Ingress".to_owned(), "Egress".to_owned()]),
            ingress: Some(vec![NetworkPolicyIngressRule {
                ports: Some(vec![port("TCP", HTTP_PORT)]),
                from: None,
            }]),
            egress: Some(vec![egress(dns), egress(servers)]),
        }),
    }
}
