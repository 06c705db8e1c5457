//! `ems-bots console`: takes what the API server reports.

mod bots;
pub mod certificate;
mod configuration;
pub mod inboxes;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use prometheus::Registry;
use secrecy::SecretString;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::secret_files::{database, text};
use crate::{
    console::{
        caller::Proof,
        deliver::Delivery,
        estate::{Estate, Place},
        forward::Forwarder,
        metrics::Metrics,
        server::{self, Intake},
        tls::{Acceptor, Certificate},
    },
    domain::{Clock, Failure as _, SystemClock},
    lifecycle::Lifecycle,
    store::{
        pg::{Endpoint, EndpointParts, SchemaName, platform::PgPlatform},
        platform::PlatformStore,
    },
    telemetry::{Health, init_logging, serve},
};

/// Arguments of `ems-bots console`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Namespace of this pod.
    #[arg(long, env = "EMS_POD_NAMESPACE", default_value = "ems-bots")]
    pod_namespace: String,
    /// Name of the console's `ServiceAccount`.
    #[arg(long, env = "EMS_SERVICE_ACCOUNT", default_value = "ems-bots-console")]
    service_account: String,
    /// Name of the operator's `ServiceAccount`.
    #[arg(long, env = "EMS_OPERATOR_SERVICE_ACCOUNT", default_value = "ems-bots-operator")]
    operator_service_account: String,
    /// Folder with the files host, port, dbname, username and password of the console's own database.
    #[arg(
        long,
        env = "EMS_CONSOLE_DATABASE_DIR",
        default_value = "/etc/ems-bots/console-database",
        value_name = "DIR"
    )]
    database: PathBuf,
    /// Schema in that database.
    #[arg(long, env = "EMS_CONSOLE_DATABASE_SCHEMA", default_value = "console")]
    database_schema: SchemaName,
    /// PEM certificates of the authority that signed the database server's; without one the server is not checked.
    #[arg(long, env = "EMS_CONSOLE_DATABASE_CA_FILE", value_name = "FILE")]
    database_ca_file: Option<PathBuf>,
    /// Folder with tls.crt and tls.key that somebody else makes and renews [default: the console makes its own].
    #[arg(long, env = "EMS_CERTIFICATE_DIR", value_name = "DIR")]
    certificate: Option<PathBuf>,
    /// Service by which the API server reaches the intake: the name in a certificate of the console's own.
    #[arg(long, env = "EMS_CONSOLE_SERVICE", default_value = "ems-bots-console")]
    service: String,
    /// Webhook configuration that is told how to know a certificate of the console's own.
    #[arg(long, env = "EMS_WEBHOOK_CONFIGURATION", default_value = "ems-bots-console")]
    webhook: String,
    /// What the API server does with a request for which the webhook cannot be reached: recorded in the trails as a part of
    /// the configuration, as it decides whether a request can be missing in them.
    #[arg(long, env = "EMS_FAILURE_POLICY", value_parser = ["Ignore", "Fail"])]
    failure_policy: Option<String>,
    /// PEM certificates of the authority that signs the API server's client certificate, and nobody else's.
    #[arg(long, env = "EMS_CLIENT_CA_FILE", value_name = "FILE")]
    client_ca_file: Option<PathBuf>,
    /// File with the token that the API server sends along.
    #[arg(long, env = "EMS_INTAKE_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Secrets here that the console uses, separated by commas: who reads them is recorded.
    #[arg(long = "secret", env = "EMS_CONSOLE_SECRETS", value_name = "NAMES", value_delimiter = ',')]
    secrets: Vec<String>,
    /// Address of the intake.
    #[arg(long, env = "EMS_INTAKE_LISTEN", default_value = "0.0.0.0:8443")]
    intake_listen: SocketAddr,
    /// Address of `/livez`, `/readyz` and `/metrics`.
    #[arg(long, env = "EMS_LISTEN", default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
    /// File with a log filter that is followed while the process runs.
    #[arg(long, env = "EMS_LOG_FILTER_FILE")]
    log_filter_file: Option<PathBuf>,
}

/// Parts of the readiness. The console's database is none: the intake works without it as long as those of the
/// tenants are there.
const CERTIFICATE: &str = "certificate";
const BOTS: &str = "bots";
const INTAKE: &str = "intake";

/// Runs until a signal comes.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let filter = init_logging()?;
    let lifecycle = Lifecycle::new();
    let (registry, health) = (Registry::new(), Health::default());
    let metrics = Metrics::new(&registry)?;
    for part in [CERTIFICATE, BOTS] {
        health.waiting(part, "not there yet");
    }
    if let Some(file) = args.log_filter_file.clone() {
        tokio::spawn(filter.follow(file, Duration::from_secs(10), lifecycle.soft()));
    }
    // It is seen to the end: until then there are reports.
    let closed = CancellationToken::new();
    lifecycle.spawn("telemetry", serve(args.listen, registry, health.clone(), closed.clone()));
    let client = kube::Client::try_default().await.context("cannot find a Kubernetes cluster")?;
    let platform = Arc::new(PgPlatform::new(endpoint(&args)?));
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let estate = start_bots(&args, &client, &health, &lifecycle);
    let acceptor = start_certificate(&args, &client, &metrics, &health, &lifecycle)?;
    let inboxes = Arc::new(inboxes::KubeInboxes::new(client.clone()));
    let intake = Intake {
        delivery: Delivery::new(inboxes.clone(), platform.clone(), metrics.clone()),
        estate: estate.clone(),
        proof: Arc::new(Proof { token: secret(args.token_file.as_deref())? }),
        clock: clock.clone(),
        metrics: metrics.clone(),
    };
    start_intake(args.intake_listen, acceptor, intake, &health, &lifecycle, closed);
    let store: Arc<dyn PlatformStore> = platform.clone();
    let forwarder = Forwarder { platform: store.clone(), inboxes, estate: estate.clone(), metrics };
    let (soft, own) = (lifecycle.soft(), configuration::of_console(&args));
    let namespace = args.pod_namespace.clone();
    lifecycle.spawn("forwarder", async move {
        if migrated(&platform, &soft).await {
            let noting = configuration::note(store, estate, clock, (client, namespace), own, soft.clone());
            tokio::join!(forwarder.run(soft), noting);
        }
        Ok::<_, std::convert::Infallible>(())
    });
    Ok(lifecycle.run_until_shutdown().await?)
}

fn start_bots(
    args: &Args,
    client: &kube::Client,
    health: &Health,
    lifecycle: &Lifecycle,
) -> watch::Receiver<Arc<Estate>> {
    let place = Place {
        namespace: args.pod_namespace.clone(),
        operator: args.operator_service_account.clone(),
        console: args.service_account.clone(),
        secrets: args.secrets.iter().cloned().collect(),
    };
    let (bots, estate) = bots::Bots::new(place);
    let (soft, health) = (lifecycle.soft(), health.clone());
    let client = client.clone();
    lifecycle.spawn("bots", async move {
        bots.follow(client, soft, || health.ready(BOTS)).await;
        Ok::<_, std::convert::Infallible>(())
    });
    estate
}

fn start_intake(
    address: SocketAddr,
    acceptor: Acceptor,
    intake: Intake,
    health: &Health,
    lifecycle: &Lifecycle,
    closed: CancellationToken,
) {
    let (soft, health) = (lifecycle.soft(), health.clone());
    let asked = soft.clone();
    tokio::spawn(async move {
        asked.cancelled().await;
        health.waiting(INTAKE, "asked to end");
    });
    lifecycle.spawn("intake", async move {
        let _closed = closed.drop_guard();
        server::serve(address, acceptor, intake, soft).await
    });
}

fn start_certificate(
    args: &Args,
    client: &kube::Client,
    metrics: &Metrics,
    health: &Health,
    lifecycle: &Lifecycle,
) -> anyhow::Result<Acceptor> {
    let certificate = Certificate::default();
    let authorities = args
        .client_ca_file
        .as_ref()
        .map(|file| std::fs::read(file).with_context(|| format!("{} cannot be read", file.display())))
        .transpose()?;
    let acceptor = Acceptor::new(certificate.clone(), authorities.as_deref())?;
    let (soft, health) = (lifecycle.soft(), health.clone());
    let ready = move || health.ready(CERTIFICATE);
    if let Some(folder) = args.certificate.clone() {
        lifecycle
            .spawn("certificate", certificate::follow(folder, certificate::EVERY, certificate, ready, soft));
    } else {
        let own = certificate::Own {
            client: client.clone(),
            clock: Arc::new(SystemClock),
            namespace: args.pod_namespace.clone(),
            service: args.service.clone(),
            webhook: args.webhook.clone(),
            metrics: metrics.clone(),
        };
        lifecycle.spawn("certificate", own.keep(certificate, ready, soft));
    }
    Ok(acceptor)
}

async fn migrated(platform: &PgPlatform, soft: &CancellationToken) -> bool {
    let mut delay = Duration::from_secs(1);
    loop {
        match platform.migrate().await {
            Ok(()) => return true,
            Err(error) => {
                tracing::warn!(category = error.category(), %error, sqlstate = error.sqlstate(),
                    "the console's database is not ready");
            }
        }
        tokio::select! {
            () = soft.cancelled() => return false,
            () = tokio::time::sleep(delay) => delay = (delay * 2).min(Duration::from_secs(30)),
        }
    }
}

fn endpoint(args: &Args) -> anyhow::Result<Endpoint> {
    let ca_pem = args.database_ca_file.as_deref().map(text).transpose()?;
    let parts = database(&args.database, &args.database_schema, "ems-bots console")?;
    Ok(Endpoint::from_parts(EndpointParts { ca_pem, ..parts })?)
}

fn secret(file: Option<&Path>) -> anyhow::Result<Option<SecretString>> {
    file.map(|file| text(file).map(SecretString::from)).transpose()
}
