//! `ems-bots doctor`: looks at everything that a bot needs and says how to mend what is missing.
//! It changes nothing.

mod cluster;
mod database;
mod homeserver;
mod report;

use std::{io, path::PathBuf, process::ExitCode, str::FromStr};

use anyhow::Context as _;
use kube::Client;
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use self::{cluster::FromBot, database::Target, homeserver::Credential, report::Report};
use crate::{
    crd::{AdminBot, AuditBot},
    domain::{BotKind, ServerName},
    homeserver::synapse::{Connection, Settings},
    store::pg::{Endpoint, EndpointParts, SchemaName},
};

/// Arguments of `ems-bots doctor`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Secrets are read from files or from the variables EMS_ACCESS_TOKEN and EMS_REGISTRATION_SHARED_SECRET.

Exit codes:
  0  nothing that was looked at is broken (warnings may be)
  1  failed; the last line on standard error says why
  3  something is broken")]
pub struct Args {
    /// Take everything from this custom resource, for example auditbots/auditbot.
    #[arg(long, value_name = "KIND/NAME")]
    bot: Option<BotRef>,
    /// Its namespace; default is that of the current context or pod.
    #[arg(long, short = 'n')]
    namespace: Option<String>,
    /// Do not look at the cluster.
    #[arg(long, conflicts_with = "bot")]
    no_cluster: bool,
    /// Homeserver, admin API included; overrides the custom resource's.
    #[arg(long, env = "EMS_HOMESERVER_URL", value_name = "URL")]
    homeserver_url: Option<Url>,
    /// What the homeserver should call itself.
    #[arg(long, env = "EMS_SERVER_NAME")]
    server_name: Option<ServerName>,
    /// PEM certificates of the authority that signed the homeserver's.
    #[arg(long, env = "EMS_HOMESERVER_CA_FILE", value_name = "FILE")]
    homeserver_ca_file: Option<PathBuf>,
    /// File with a server admin's access token.
    #[arg(long, value_name = "FILE")]
    access_token_file: Option<PathBuf>,
    /// File with Synapse's registration shared secret.
    #[arg(long, value_name = "FILE", conflicts_with = "access_token_file")]
    registration_secret_file: Option<PathBuf>,
    /// Database as postgresql://user:password@host:port/database; overrides the custom resource's.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    database_url: Option<String>,
    /// Schema of the trail.
    #[arg(long, env = "EMS_DATABASE_SCHEMA")]
    schema: Option<SchemaName>,
    /// How to print.
    #[arg(long, default_value = "text")]
    output: Output,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Output {
    Text,
    Json,
}

/// A kind and a name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct BotRef {
    kind: BotKind,
    name: String,
}

impl FromStr for BotRef {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || "expected auditbots/NAME or adminbots/NAME".to_owned();
        let (kind, name) = text.split_once('/').ok_or_else(expected)?;
        let kind = match kind.to_ascii_lowercase().split('.').next().unwrap_or_default() {
            "auditbot" | "auditbots" => BotKind::Audit,
            "adminbot" | "adminbots" => BotKind::Admin,
            _ => return Err(expected()),
        };
        if name.is_empty() || name.contains('/') {
            return Err(expected());
        }
        Ok(Self { kind, name: name.to_owned() })
    }
}

/// Runs it.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut report = Report::default();
    let from_bot = if args.no_cluster { None } else { look_at_cluster(&mut report, &args).await };
    look_at_homeserver(&mut report, &args, from_bot.as_ref()).await?;
    look_at_database(&mut report, &args, from_bot.as_ref()).await;
    let mut out = io::stdout().lock();
    match args.output {
        Output::Text => report.write_text(&mut out),
        Output::Json => report.write_json(&mut out),
    }
    .context("the report cannot be written")?;
    Ok(if report.has_failures() { ExitCode::from(3) } else { ExitCode::SUCCESS })
}

async fn look_at_cluster(report: &mut Report, args: &Args) -> Option<FromBot> {
    let client: Client = cluster::connect(report).await?;
    let namespace = args.namespace.clone().unwrap_or_else(|| client.default_namespace().to_owned());
    cluster::check_kinds(report, &client, &namespace).await;
    let bot = args.bot.as_ref()?;
    cluster::check_opt_in(report, &client, &namespace).await;
    match bot.kind {
        BotKind::Admin => cluster::check_bot::<AdminBot>(report, &client, &namespace, &bot.name).await,
        BotKind::Audit => cluster::check_bot::<AuditBot>(report, &client, &namespace, &bot.name).await,
    }
}

async fn look_at_homeserver(
    report: &mut Report,
    args: &Args,
    from_bot: Option<&FromBot>,
) -> anyhow::Result<()> {
    let url = args.homeserver_url.clone().or_else(|| from_bot.and_then(|bot| bot.url.parse().ok()));
    let Some(url) = url else {
        let fix = "give --homeserver-url or --bot";
        report.warn("homeserver", "address", "no homeserver was given, so none was looked at", fix);
        return Ok(());
    };
    let server_name = args
        .server_name
        .clone()
        .or_else(|| from_bot.and_then(|bot| ServerName::parse(bot.server_name.clone()).ok()));
    let ca_pem = match &args.homeserver_ca_file {
        Some(path) => {
            Some(std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?)
        }
        None => from_bot.and_then(|bot| bot.homeserver_ca.clone()),
    };
    let credential = given_credential(args)?.or_else(|| {
        // A credential of the cluster is for the URL that its Secret names and for no other.
        let is_same = |bot: &&FromBot| args.homeserver_url.is_none() || bot.url.parse() == Ok(url.clone());
        from_bot.filter(is_same).and_then(|bot| bot.credential.clone())
    });
    let settings = Settings { ca_pem, ..Settings::new(url) };
    match Connection::new(&settings) {
        Ok(connection) => {
            homeserver::check(report, &connection, server_name.as_ref(), credential.as_ref()).await;
        }
        Err(error) => {
            report.fail("homeserver", "address", error.to_string(), "correct the URL or the certificates");
        }
    }
    Ok(())
}

fn given_credential(args: &Args) -> anyhow::Result<Option<Credential>> {
    let read = |path: &PathBuf| -> anyhow::Result<SecretString> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
        Ok(SecretString::from(text.trim_end()))
    };
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    Ok(match (&args.access_token_file, &args.registration_secret_file) {
        (Some(path), _) => Some(Credential::AccessToken(read(path)?)),
        (None, Some(path)) => Some(Credential::SharedSecret(read(path)?)),
        (None, None) => match (variable("EMS_ACCESS_TOKEN"), variable("EMS_REGISTRATION_SHARED_SECRET")) {
            (Some(token), _) => Some(Credential::AccessToken(token.into())),
            (None, Some(secret)) => Some(Credential::SharedSecret(secret.into())),
            (None, None) => None,
        },
    })
}

async fn look_at_database(report: &mut Report, args: &Args, from_bot: Option<&FromBot>) {
    let target = match (&args.database_url, from_bot) {
        (Some(url), _) => target_of_url(args, &SecretString::from(url.as_str())),
        (None, Some(bot)) => match target_of_bot(args, bot) {
            Some(target) => target,
            // What is wrong with the Secret has been said.
            None => return,
        },
        (None, None) => {
            let fix = "give DATABASE_URL or --bot";
            report.warn("database", "address", "no database was given, so none was looked at", fix);
            return;
        }
    };
    match target {
        Ok(target) => database::check(report, &target).await,
        Err(problem) => {
            report.fail("database", "address", problem, "correct the URL or the Secret");
        }
    }
}

fn schema(args: &Args, default: &str) -> Result<SchemaName, String> {
    let parsed = || SchemaName::parse(default).map_err(|error| error.to_string());
    args.schema.clone().map_or_else(parsed, Ok)
}

fn target_of_url(args: &Args, url: &SecretString) -> Result<Target, String> {
    let endpoint = Endpoint::from_url(url, schema(args, BotKind::Audit.slug())?, "ems-bots/doctor")
        .map_err(|error| error.to_string())?;
    let parsed: Url = url.expose_secret().parse().map_err(|_| "database URL is not valid".to_owned())?;
    Ok(Target {
        host: parsed.host_str().unwrap_or("localhost").to_owned(),
        port: parsed.port().unwrap_or(5432),
        endpoint,
        roles_given: false,
    })
}

fn target_of_bot(args: &Args, bot: &FromBot) -> Option<Result<Target, String>> {
    let keys = bot.database.as_ref()?;
    let text = |key: &str| keys.get(key).cloned().unwrap_or_default();
    let build = || {
        let port = text("port").trim().parse().map_err(|_| "port is not a number up to 65535".to_owned())?;
        let parts = EndpointParts {
            host: text("host"),
            port,
            dbname: text("dbname"),
            user: text("username"),
            password: text("password").into(),
            ca_pem: bot.database_ca.clone(),
            ssl_mode: None,
            schema: schema(args, &bot.schema)?,
            application_name: "ems-bots/doctor".to_owned(),
        };
        let endpoint = Endpoint::from_parts(parts).map_err(|error| error.to_string())?;
        Ok(Target { host: text("host"), port, endpoint, roles_given: bot.roles_given })
    };
    Some(build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bot_is_named_as_kubectl_names_it() {
        for text in ["auditbots/main", "auditbot/main", "AuditBot/main", "auditbots.ems.element.io/main"] {
            let parsed: BotRef = text.parse().unwrap();
            assert_eq!(parsed, BotRef { kind: BotKind::Audit, name: "main".to_owned() });
        }
        assert_eq!("adminbots/x".parse::<BotRef>().unwrap().kind, BotKind::Admin);
        for text in ["main", "pods/main", "auditbots/", "auditbots/a/b"] {
            assert!(text.parse::<BotRef>().is_err(), "{text}");
        }
    }
}
