//! How often anybody writes to the API server, by its own count: no-op writes count too.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client, api::ListParams};

use crate::support::eventually;

/// Verbs that write.
const WRITES: [&str; 5] = ["POST", "PUT", "PATCH", "APPLY", "DELETE"];
/// What this product writes to, apart from Leases. Pods and the status of `StatefulSets` are
/// written by Kubernetes itself.
const RESOURCES: [&str; 12] = [
    "adminbots",
    "auditbots",
    "secrets",
    "configmaps",
    "serviceaccounts",
    "roles",
    "rolebindings",
    "services",
    "statefulsets",
    "persistentvolumeclaims",
    "networkpolicies",
    "events",
];

/// Number of writes by `verb resource/subresource`, since the API server started.
pub async fn written(client: &Client) -> BTreeMap<String, u64> {
    let request = http::Request::get("/metrics").body(Vec::new()).unwrap();
    let text = client.request_text(request).await.expect("the API server tells its metrics");
    let mut counts = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("apiserver_request_total{")) {
        let label = |name: &str| {
            let start = line.find(&format!(",{name}=\"")).or_else(|| line.find(&format!("{{{name}=\"")))?;
            line[start..].split('"').nth(1)
        };
        let (verb, resource) = (label("verb").unwrap_or_default(), label("resource").unwrap_or_default());
        let subresource = label("subresource").unwrap_or_default();
        // The kubelet asks for tokens; Kubernetes' own controllers write the status of its own kinds.
        let foreign = subresource == "token"
            || (subresource == "status" && !resource.ends_with("bots"))
            // The kubelet tells of crashes in Events of the old group.
            || (resource == "events" && label("group") != Some("events.k8s.io"))
            || label("dry_run").is_some_and(|dry| !dry.is_empty());
        if WRITES.contains(&verb) && RESOURCES.contains(&resource) && !foreign {
            let value = line.rsplit(' ').next().unwrap().parse::<f64>().unwrap_or(0.0);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a counter")]
            let value = value as u64;
            *counts.entry(format!("{verb} {resource}/{subresource}")).or_insert(0) += value;
        }
    }
    counts
}

/// Writes within this time; only what was written at all is listed. The API server does not tell who
/// wrote, so that what Kubernetes deletes with the namespaces of earlier tests is waited for.
pub async fn writes_within(client: &Client, span: Duration) -> BTreeMap<String, u64> {
    eventually("no namespace is going", Duration::from_mins(2), || async {
        let all = Api::<Namespace>::all(client.clone()).list(&ListParams::default()).await.unwrap();
        let going = all.items.iter().filter(|one| one.metadata.deletion_timestamp.is_some()).count();
        if going == 0 { Ok(()) } else { Err(format!("{going} are going")) }
    })
    .await;
    let (before, started) = (written(client).await, Instant::now());
    tokio::time::sleep(span.saturating_sub(started.elapsed())).await;
    let after = written(client).await;
    let grown = |(what, count): (String, u64)| {
        let more = count - before.get(&what).copied().unwrap_or(0);
        (more > 0).then_some((what, more))
    };
    after.into_iter().filter_map(grown).collect()
}
