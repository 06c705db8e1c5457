//! What operator and console run with, for the trails.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Args;
use crate::{
    cli::operator::CONFIGURATION,
    console::{
        config::{Notes, Process},
        estate::Estate,
    },
    domain::{Clock, Failure as _},
    store::platform::PlatformStore,
};

const EVERY: Duration = Duration::from_secs(30);
/// The same while the bots are being listed.
const SOON: Duration = Duration::from_secs(1);

/// What the console runs with. No secret: files are named, not read.
pub(super) fn of_console(args: &Args) -> Value {
    let file = |file: &Option<std::path::PathBuf>| file.as_ref().map(|file| file.display().to_string());
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "namespace": args.pod_namespace,
        "serviceAccount": args.service_account,
        "operatorServiceAccount": args.operator_service_account,
        "databaseSchema": args.database_schema.as_str(),
        "databaseCaFile": file(&args.database_ca_file),
        "certificateDir": file(&args.certificate),
        "clientCaFile": file(&args.client_ca_file),
        "tokenFile": file(&args.token_file),
        "secrets": args.secrets,
        "webhookConfiguration": args.webhook,
        "failurePolicy": args.failure_policy,
        "service": args.service,
    })
}

/// Notes both in the trails, until cancelled.
pub(super) async fn note(
    platform: Arc<dyn PlatformStore>,
    estate: watch::Receiver<Arc<Estate>>,
    clock: Arc<dyn Clock>,
    (client, namespace): (Client, String),
    own: Value,
    soft: CancellationToken,
) {
    let (mut of_console, mut of_operator) = (Notes::of(Process::Console), Notes::of(Process::Operator));
    let mut ticks = tokio::time::interval(EVERY);
    loop {
        tokio::select! {
            () = soft.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let estate = estate.borrow().clone();
        // Only then it is known which bots there are from the beginning.
        if !estate.is_complete {
            ticks.reset_after(SOON);
            continue;
        }
        let now = clock.now();
        let mut outcome = of_console.note(&platform, &estate, &own, now).await;
        if let Some(value) = operator(&client, &namespace).await {
            outcome = outcome.and(of_operator.note(&platform, &estate, &value, now).await);
        }
        if let Err(error) = outcome {
            tracing::warn!(category = error.category(), %error, "the configuration could not be recorded");
        }
    }
}

/// The operator says it in a ConfigMap: it has no way into a trail.
async fn operator(client: &Client, namespace: &str) -> Option<Value> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let found = maps.get_opt(CONFIGURATION).await.ok()??;
    serde_json::from_str(found.data?.get("configuration")?).ok()
}
