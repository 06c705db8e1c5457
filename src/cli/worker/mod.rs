//! `ems-bots worker`: one bot's device and the only writer of its trail.

mod files;
mod homeserver;
mod kubernetes;
mod local;
mod status;

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context as _;
use clap::ValueEnum;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use self::files::Files;
pub(super) use self::homeserver::HomeserverArgs;
use crate::{
    crd::{AdminBot, AuditBot},
    domain::{BotKind, BotName, Clock, SystemClock, UserId, worker::Instructions},
    homeserver::Connect,
    lifecycle::Lifecycle,
    store::pg::{Endpoint, EndpointParts, PgStore, Role, SchemaName, WriterOptions, role_name},
    telemetry::{Health, LogFilter, init_logging, serve},
    worker::{
        acts::Acts,
        board::Board,
        cover::Cover,
        media::{Bucket, BucketSettings},
        metrics::Metrics,
        ports::Reporter,
        recorder::{Recorder, Stop},
        session::{self, Secrets, Sessions},
        supervisor::{Pace, Worker},
    },
};

/// Follow one bot's rooms and write its audit trail. Runs in the pod that the operator makes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Kind of the custom resource.
    #[arg(long, env = "EMS_BOT_KIND", value_enum)]
    kind: Kind,
    /// Namespace of the custom resource.
    #[arg(long, env = "EMS_BOT_NAMESPACE")]
    namespace: String,
    /// Name of the custom resource.
    #[arg(long, env = "EMS_BOT_NAME")]
    name: String,
    #[command(flatten)]
    homeserver: HomeserverArgs,
    /// Schema of the trail in the database [default: the kind].
    #[arg(long, env = "EMS_DATABASE_SCHEMA")]
    database_schema: Option<String>,
    /// S3-compatible service with the bucket for attachments [default: they go into the database].
    #[arg(long, env = "EMS_MEDIA_BUCKET_ENDPOINT", requires = "media_bucket_name")]
    media_bucket_endpoint: Option<String>,
    /// Name of that bucket.
    #[arg(long, env = "EMS_MEDIA_BUCKET_NAME", requires = "media_bucket_endpoint")]
    media_bucket_name: Option<String>,
    /// Region that its requests are signed for.
    #[arg(long, env = "EMS_MEDIA_BUCKET_REGION", default_value = "us-east-1")]
    media_bucket_region: String,
    /// What the names of its objects begin with.
    #[arg(long, env = "EMS_MEDIA_BUCKET_PREFIX")]
    media_bucket_prefix: Option<String>,
    /// The worker's volume.
    #[arg(long, env = "EMS_DATA_DIR", default_value = "/var/lib/ems-bots")]
    data_dir: PathBuf,
    /// Address of /livez, /readyz and /metrics.
    #[arg(long, env = "EMS_LISTEN", default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
    /// Read the custom resource from this YAML file instead of from a cluster, follow its changes,
    /// and log reports instead of writing a status.
    #[arg(long, value_name = "FILE")]
    local: Option<PathBuf>,
    /// Version of the operator that made this pod, for the trail.
    #[arg(long, env = "EMS_OPERATOR_VERSION", hide = true)]
    operator_version: Option<String>,
    /// Seconds between two looks at the bot's identity.
    #[arg(long, env = "EMS_EXAMINE_SECONDS", default_value = "60", hide = true)]
    examine_seconds: u64,
    /// Longest time in seconds between two looks at what the homeserver tells only who asks.
    #[arg(long, env = "EMS_SURVEY_SECONDS", default_value = "86400", hide = true)]
    survey_seconds: u64,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    #[value(name = "adminbot", alias = "AdminBot")]
    Admin,
    #[value(name = "auditbot", alias = "AuditBot")]
    Audit,
}

impl From<Kind> for BotKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Admin => Self::Admin,
            Kind::Audit => Self::Audit,
        }
    }
}

/// Runs until a signal comes, or until another process has become the trail's writer.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let filter = init_logging()?;
    let bot = BotName { namespace: args.namespace.clone(), name: args.name.clone(), kind: args.kind.into() };
    // Of this run of the process: also on its first and last record.
    let run_id = uuid::Uuid::new_v4().to_string();
    let span = tracing::info_span!(
        "worker", namespace = %bot.namespace, bot = %bot.name, kind = %bot.kind, correlation_id = %run_id
    );
    Box::pin(run_for(args, bot, run_id, filter)).instrument(span).await
}

async fn run_for(args: Args, bot: BotName, run_id: String, filter: LogFilter) -> anyhow::Result<ExitCode> {
    let lifecycle = Lifecycle::new();
    let soft = lifecycle.soft();
    let files = args.homeserver.files();
    let registry = prometheus::Registry::new();
    let metrics = Metrics::new(&registry, Arc::new(SystemClock))?;
    let health = Health::default();
    health.waiting("custom resource", "not read yet");
    lifecycle.spawn("endpoints", serve(args.listen, registry, health.clone(), soft.clone()));
    let kept = files.kept_trail();
    let (instructions, reporter): (watch::Receiver<Instructions>, Arc<dyn Reporter>) = match &args.local {
        Some(file) => local::start(args.kind.into(), file.clone(), kept, &lifecycle).await?,
        None => {
            let client = kube::Client::try_default().await.context("no access to the Kubernetes API")?;
            let started = async {
                match args.kind {
                    Kind::Admin => kubernetes::start::<AdminBot>(client, bot.clone(), kept, &lifecycle).await,
                    Kind::Audit => kubernetes::start::<AuditBot>(client, bot.clone(), kept, &lifecycle).await,
                }
            };
            tokio::select! {
                started = started => started?,
                () = soft.cancelled() => return Ok(lifecycle.run_until_shutdown().await?),
                () = terminated() => return Ok(ExitCode::SUCCESS),
            }
        }
    };
    health.ready("custom resource");
    lifecycle.spawn("log filter", follow_log_filter(filter, instructions.clone(), soft.clone()));
    let outside = Outside { bot, run_id, metrics, health, instructions, reporter };
    let worker = build(&args, &files, outside, soft.clone())?;
    let lost = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let flag = lost.clone();
    let task = async move {
        let result = worker.run(soft).await;
        flag.store(matches!(result, Err(Stop::LostSequencer)), std::sync::atomic::Ordering::Relaxed);
        result
    };
    lifecycle.spawn("worker", task);
    let code = lifecycle.run_until_shutdown().await?;
    // Refused: another process writes this trail.
    Ok(if lost.load(std::sync::atomic::Ordering::Relaxed) { ExitCode::from(4) } else { code })
}

/// What the worker is given by its surroundings.
struct Outside {
    bot: BotName,
    run_id: String,
    metrics: Metrics,
    health: Health,
    instructions: watch::Receiver<Instructions>,
    reporter: Arc<dyn Reporter>,
}

/// Logs what the custom resource asks for; a wrong filter is reported and changes nothing.
async fn follow_log_filter(
    filter: LogFilter,
    mut instructions: watch::Receiver<Instructions>,
    soft: CancellationToken,
) -> Result<(), std::convert::Infallible> {
    let mut current = String::new();
    loop {
        let wanted = instructions.borrow_and_update().log_filter.clone();
        if wanted != current {
            match filter.set(&wanted) {
                Ok(()) => tracing::info!(filter = %wanted, "log filter set"),
                Err(error) => tracing::warn!(%error, "log filter not changed; correct the annotation"),
            }
            current = wanted;
        }
        tokio::select! {
            () = soft.cancelled() => return Ok(()),
            changed = instructions.changed() => if changed.is_err() { soft.cancelled().await },
        }
    }
}

async fn terminated() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            terminate.recv().await;
        }
        Err(_) => std::future::pending().await,
    }
}

fn build(args: &Args, files: &Files, outside: Outside, soft: CancellationToken) -> anyhow::Result<Worker> {
    let Outside { bot, run_id, metrics, health, instructions, reporter } = outside;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let connection = args.homeserver.connect(clock.clone())?;
    let admin_session = files.admin_session()?;
    let admin = Arc::from(connection.admin(admin_session.clone()));
    let user = {
        let instructions = instructions.borrow();
        UserId::from_parts(&instructions.username, &instructions.server_name)
    };
    let sessions = Arc::new(Sessions::new(
        session::Settings {
            homeserver: args.homeserver.url.to_string(),
            ca: args.homeserver.ca(),
            proxy: args.homeserver.proxy_url.clone().map(Into::into),
            no_proxy: args.homeserver.no_proxy.clone(),
            user: user.clone(),
            data_dir: args.data_dir.clone(),
            secrets: Secrets {
                password: files.secret("account/password")?,
                phrase: files.secret("backup-phrase/phrase")?,
                device_prefix: files.text("account/device-prefix")?,
            },
            phrase_file: Some(args.homeserver.config_dir.join("backup-phrase/phrase")),
        },
        Arc::clone(&admin),
    ));
    let bucket = bucket(args, files)?;
    let board = Board::new();
    let store = Arc::new(PgStore::new(
        endpoint(args, files, bot.kind)?,
        WriterOptions { rng: seeded(), inbox_key: Some(files.inbox_key()?) },
    ));
    let recorder = Recorder::new(store, clock.clone(), board.clone(), metrics.clone());
    let inspect = Arc::from(connection.inspect(admin_session.clone()));
    let acts = Arc::new(Acts::new(bot.clone(), user.clone(), recorder.clone(), soft));
    let cover = Cover {
        connect: Arc::new(connection),
        admin: admin_session,
        acts: acts.clone(),
        clock: clock.clone(),
    };
    Ok(Worker {
        bot,
        user,
        operator_version: args.operator_version.clone(),
        run_id,
        sessions,
        admin,
        recorder,
        board,
        metrics,
        health,
        instructions,
        reporter,
        presence: acts.clone(),
        cover: Some(cover),
        inspect: Some(inspect),
        bucket,
        pace: Pace {
            examine: Duration::from_secs(args.examine_seconds.max(1)),
            survey: Duration::from_secs(args.survey_seconds.max(1)),
            ..Pace::default()
        },
    })
}

/// The bucket comes from the command line, not from the custom resource: whoever may change that, and
/// read no Secret, must not have anything sent elsewhere.
fn bucket(args: &Args, files: &Files) -> anyhow::Result<Option<Bucket>> {
    let (Some(endpoint), Some(name)) = (&args.media_bucket_endpoint, &args.media_bucket_name) else {
        return Ok(None);
    };
    let settings = BucketSettings {
        endpoint: endpoint.clone(),
        name: name.clone(),
        region: args.media_bucket_region.clone(),
        prefix: args.media_bucket_prefix.clone(),
        access_key_id: files.secret("media-bucket/access-key-id")?,
        secret_access_key: files.secret("media-bucket/secret-access-key")?,
        ca: files.optional("media-bucket-ca/ca.crt").map(String::into_bytes),
    };
    Ok(Some(Bucket::new(&settings)?))
}

fn endpoint(args: &Args, files: &Files, kind: BotKind) -> anyhow::Result<Endpoint> {
    let schema = SchemaName::parse(args.database_schema.as_deref().unwrap_or(kind.slug()))?;
    let dbname = files.text("database/dbname")?;
    // Where the owner may not create roles, a role was given by name.
    let user = files
        .optional("database-roles/writer-username")
        .unwrap_or_else(|| role_name(&schema, &dbname, Role::Writer));
    let port = files.optional("database/port").map_or(Ok(5432), |port| port.parse());
    let parts = EndpointParts {
        host: files.text("database/host")?,
        port: port.context("port in the database Secret is no number")?,
        dbname,
        user,
        password: files.secret("database-roles/writer-password")?,
        ca_pem: files.optional("database-ca/ca.crt"),
        ssl_mode: None,
        schema,
        application_name: format!("ems-bots worker {}/{}", args.namespace, args.name),
    };
    Ok(Endpoint::from_parts(parts)?)
}

/// Salts and the writer's id come from the operating system's randomness.
fn seeded() -> rand::rngs::StdRng {
    rand::make_rng()
}
