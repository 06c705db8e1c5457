//! The cluster: definitions, the tenant's opt-in, and the Secrets that a bot refers to.

use std::collections::BTreeMap;

use k8s_openapi::api::{core::v1::Secret, rbac::v1::RoleBinding};
use kube::{
    Api, Client,
    api::{ListParams, ObjectMeta},
};
use secrecy::SecretString;

use super::{homeserver::Credential, report::Report};
use crate::crd::{
    AdminApi, AdminBot, AuditBot, Bot, GROUP, annotations,
    common::{CaSecretRef, RoleRef},
};

const AREA: &str = "cluster";
/// The role that a tenant's namespace binds to let the operator in.
const TENANT_ROLE: &str = "ems-bots-tenant";
const DATABASE_KEYS: [&str; 5] = ["host", "port", "dbname", "username", "password"];

/// What the custom resource says, with the Secrets that it refers to.
pub(super) struct FromBot {
    pub url: String,
    pub server_name: String,
    pub homeserver_ca: Option<Vec<u8>>,
    pub credential: Option<Credential>,
    pub schema: String,
    pub database: Option<BTreeMap<String, String>>,
    pub database_ca: Option<String>,
    pub roles_given: bool,
}

/// Connects to the cluster, or says why not.
pub(super) async fn connect(report: &mut Report) -> Option<Client> {
    let client = match Client::try_default().await {
        Ok(client) => client,
        Err(error) => {
            report.fail(
                AREA,
                "access",
                format!("no access to a cluster is configured: {error}"),
                "set KUBECONFIG, or run this in a pod with a ServiceAccount",
            );
            return None;
        }
    };
    match client.apiserver_version().await {
        Ok(version) => {
            report.ok(AREA, "access", format!("Kubernetes {}", version.git_version));
            Some(client)
        }
        Err(error) => {
            let fix = "check KUBECONFIG, its current context, and that the API server is running";
            report.fail(AREA, "access", error.to_string(), fix);
            None
        }
    }
}

/// Looks whether both kinds are known.
pub(super) async fn check_kinds(report: &mut Report, client: &Client, namespace: &str) {
    check_kind::<AdminBot>(report, client, namespace, "AdminBot").await;
    check_kind::<AuditBot>(report, client, namespace, "AuditBot").await;
}

async fn check_kind<B: Bot>(report: &mut Report, client: &Client, namespace: &str, kind: &'static str) {
    let api: Api<B> = Api::namespaced(client.clone(), namespace);
    match api.list(&ListParams::default().limit(1)).await {
        Ok(_) => report.ok(AREA, "kinds", format!("{kind} of {GROUP} is installed")),
        Err(kube::Error::Api(status)) if status.is_not_found() => report.fail(
            AREA,
            "kinds",
            format!("{kind} of {GROUP} is not installed"),
            "install the chart, or `ems-bots crds | kubectl apply --server-side -f -`",
        ),
        Err(error) => report.warn(AREA, "kinds", may_not(&format!("list {kind}s"), namespace, &error), ASK),
    }
}

const ASK: &str = "run this as somebody who may, or in the operator's pod";

fn may_not(what: &str, namespace: &str, error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if status.is_forbidden() => {
            format!("you may not {what} in namespace {namespace}")
        }
        other => format!("cannot {what} in namespace {namespace}: {other}"),
    }
}

/// Looks whether the tenant's namespace lets the operator in.
pub(super) async fn check_opt_in(report: &mut Report, client: &Client, namespace: &str) {
    let bindings: Api<RoleBinding> = Api::namespaced(client.clone(), namespace);
    let is_opt_in = |binding: &RoleBinding| {
        binding.role_ref.kind == "ClusterRole" && binding.role_ref.name == TENANT_ROLE
    };
    match bindings.list(&ListParams::default()).await {
        Ok(list) => match list.iter().find(|binding| is_opt_in(binding)) {
            Some(binding) => {
                let subjects = binding.subjects.iter().flatten();
                let names = subjects.map(|s| format!("{}/{}", s.namespace.as_deref().unwrap_or("-"), s.name));
                let names: Vec<String> = names.collect();
                report.ok(AREA, "opt-in", format!("{TENANT_ROLE} is bound to {}", names.join(", ")));
            }
            None => report.fail(
                AREA,
                "opt-in",
                format!("no RoleBinding in namespace {namespace} lets the operator in"),
                format!(
                    "kubectl create rolebinding {TENANT_ROLE} -n {namespace} --clusterrole={TENANT_ROLE} \
                     --serviceaccount=<namespace of the operator>:ems-bots-operator"
                ),
            ),
        },
        Err(error) => report.warn(AREA, "opt-in", may_not("list RoleBindings", namespace, &error), ASK),
    }
}

/// Reads a bot, its conditions and the Secrets that it refers to.
pub(super) async fn check_bot<B: Bot>(
    report: &mut Report,
    client: &Client,
    namespace: &str,
    name: &str,
) -> Option<FromBot> {
    let api: Api<B> = Api::namespaced(client.clone(), namespace);
    let bot = match api.get_opt(name).await {
        Ok(Some(bot)) => bot,
        Ok(None) => {
            let message = format!("{} {name} is not in namespace {namespace}", B::KIND);
            report.fail(AREA, "bot", message, "check name and namespace (-n)");
            return None;
        }
        Err(error) => {
            report.fail(AREA, "bot", may_not(&format!("get {}s", B::KIND), namespace, &error), ASK);
            return None;
        }
    };
    report.ok(AREA, "bot", format!("{} {namespace}/{name} is there", B::KIND));
    tell_conditions(report, &bot);
    Some(read(report, client, namespace, &bot).await)
}

/// Every condition that is not as it should be, with the sentence that says what to do.
fn tell_conditions<B: Bot>(report: &mut Report, bot: &B) {
    let Some(status) = bot.status() else {
        let fix =
            "look whether the operator runs: kubectl get deployments -A -l app.kubernetes.io/name=ems-bots";
        report.warn(AREA, "conditions", "the operator has not looked at it yet", fix);
        return;
    };
    let normal = |condition: &&k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition| {
        let bad = if matches!(&*condition.type_, "Suspended" | "Paused") { "True" } else { "False" };
        condition.status != bad
    };
    let mut abnormal = status.conditions.iter().filter(|condition| !normal(condition)).peekable();
    if abnormal.peek().is_none() {
        report.ok(AREA, "conditions", "none complains");
    }
    for condition in abnormal {
        let message = format!("{} is {} ({})", condition.type_, condition.status, condition.reason);
        report.warn(AREA, "conditions", message, condition.message.clone());
    }
}

async fn read<B: Bot>(report: &mut Report, client: &Client, namespace: &str, bot: &B) -> FromBot {
    let common = bot.common();
    let secrets = Secrets { api: Api::namespaced(client.clone(), namespace), namespace };
    let url = common.homeserver.url.clone();
    let credential = match common.homeserver.admin_api() {
        Some(AdminApi::AccessToken(key)) => {
            secrets.credential(report, &key.name, &key.key, &url).await.map(Credential::AccessToken)
        }
        Some(AdminApi::RegistrationSharedSecret(key)) => {
            secrets.credential(report, &key.name, &key.key, &url).await.map(Credential::SharedSecret)
        }
        Some(AdminApi::Mas(_)) | None => {
            let message = "spec.homeserver.adminApi names no credential that this release can use";
            report.fail(AREA, "credential", message, "use accessToken or registrationSharedSecret");
            None
        }
    };
    let database = common.database;
    let mut roles = Vec::new();
    for role in [&database.writer, &database.reader].into_iter().flatten() {
        roles.push(secrets.role(report, role).await);
    }
    let found = secrets.keys(report, "database", &database.secret_ref.name, &DATABASE_KEYS).await;
    FromBot {
        homeserver_ca: secrets.ca(report, common.homeserver.ca_secret_ref.as_ref()).await,
        database_ca: secrets
            .ca(report, database.ca_secret_ref.as_ref())
            .await
            .and_then(|pem| String::from_utf8(pem).ok()),
        url,
        server_name: common.homeserver.server_name.clone(),
        credential,
        schema: bot.database_schema().to_owned(),
        database: found.map(|(keys, _)| keys),
        roles_given: roles.len() == 2 && roles.iter().all(|is_there| *is_there),
    }
}

/// The Secrets of one namespace.
struct Secrets<'a> {
    api: Api<Secret>,
    namespace: &'a str,
}

impl Secrets<'_> {
    /// The wanted keys of a Secret as text, and its metadata.
    async fn keys(
        &self,
        report: &mut Report,
        check: &'static str,
        name: &str,
        wanted: &[&str],
    ) -> Option<(BTreeMap<String, String>, ObjectMeta)> {
        let secret = match self.api.get_opt(name).await {
            Ok(Some(secret)) => secret,
            Ok(None) => {
                let fix = format!("create it with the keys {}", wanted.join(", "));
                let message = format!("Secret {name} is not in namespace {}", self.namespace);
                report.fail(AREA, check, message, fix);
                return None;
            }
            Err(error) => {
                let message = may_not(&format!("read Secret {name}"), self.namespace, &error);
                report.warn(AREA, check, message, ASK);
                return None;
            }
        };
        let data = secret.data.unwrap_or_default();
        let mut found = BTreeMap::new();
        for key in wanted {
            match data.get(*key).and_then(|value| String::from_utf8(value.0.clone()).ok()) {
                Some(text) if !text.trim().is_empty() => {
                    found.insert((*key).to_owned(), text.trim_end_matches(['\r', '\n']).to_owned());
                }
                _ => {
                    let message = format!("Secret {name} has no text under the key {key}");
                    report.fail(AREA, check, message, "add it; the bot notices by itself");
                    return None;
                }
            }
        }
        report.ok(AREA, check, format!("Secret {name} has {}", wanted.join(", ")));
        Some((found, secret.metadata))
    }

    /// The credential, if the Secret says that it is for this URL.
    async fn credential(
        &self,
        report: &mut Report,
        name: &str,
        key: &str,
        url: &str,
    ) -> Option<SecretString> {
        let (mut found, metadata) = self.keys(report, "credential", name, &[key]).await?;
        let stated = metadata.annotations.as_ref().and_then(|all| all.get(annotations::HOMESERVER));
        match stated {
            Some(stated) if stated == url => {
                report.ok(AREA, "credential", format!("Secret {name} is for {url}"));
                found.remove(key).map(SecretString::from)
            }
            other => {
                let said = other.map_or_else(
                    || "does not say for which URL it is".to_owned(),
                    |stated| format!("is for {stated}, not for {url}"),
                );
                report.fail(
                    AREA,
                    "credential",
                    format!("Secret {name} {said}, so nothing is sent"),
                    format!(
                        "kubectl annotate secret {name} -n {} --overwrite {}={url}",
                        self.namespace,
                        annotations::HOMESERVER
                    ),
                );
                None
            }
        }
    }

    async fn ca(&self, report: &mut Report, reference: Option<&CaSecretRef>) -> Option<Vec<u8>> {
        let reference = reference?;
        let keys = [reference.key.as_str()];
        let (mut found, _) = self.keys(report, "certificate authority", &reference.name, &keys).await?;
        found.remove(&reference.key).map(String::into_bytes)
    }

    async fn role(&self, report: &mut Report, role: &RoleRef) -> bool {
        let keys = ["username", "password"];
        self.keys(report, "database role", &role.secret_ref.name, &keys).await.is_some()
    }
}
