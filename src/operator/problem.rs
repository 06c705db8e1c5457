//! From an error to the condition that tells a person. (no client)

use super::{
    context::Settings,
    error::{Aspect, Error},
};
use crate::{crd::common::SecretKeyRef, domain::worker::Check, homeserver::HomeserverError, kube_util};

/// Which condition an error belongs to, and what it says. `credential` is where the homeserver's
/// credential comes from, if that is known.
pub fn explain(
    error: &Error,
    namespace: &str,
    settings: &Settings,
    credential: Option<&SecretKeyRef>,
) -> (Aspect, Check) {
    match error {
        Error::Problem(problem) => (problem.aspect, Check::failed(problem.reason, problem.message.clone())),
        Error::Homeserver(error) => (Aspect::Account, homeserver(error, credential)),
        // Without its rights the operator can look at neither.
        Error::Kube(error) if error.is_forbidden() => {
            (Aspect::Account, kubernetes(error, namespace, settings))
        }
        Error::Kube(error) => (Aspect::Worker, kubernetes(error, namespace, settings)),
        Error::Entropy => (Aspect::Worker, Check::failed("NoEntropy", error.to_string())),
        Error::Waiting(what) => (Aspect::Worker, Check::failed("Waiting", what.clone())),
    }
}

fn homeserver(error: &HomeserverError, credential: Option<&SecretKeyRef>) -> Check {
    let place = credential.map_or("the Secret named in spec.homeserver.adminApi".to_owned(), |credential| {
        format!("key {} of Secret {}", credential.key, credential.name)
    });
    let put = |what: &str| format!("put {what} into {place}");
    let (reason, hint) = match error {
        HomeserverError::Unreachable { .. } => (
            "HomeserverUnreachable",
            "it is tried again; check spec.homeserver.url, network policies and, for a certificate of a private \
             authority, spec.homeserver.caSecretRef",
        ),
        HomeserverError::Server { .. } => ("HomeserverFailing", "it is tried again"),
        HomeserverError::RateLimited { .. } => ("HomeserverRateLimited", "it is tried again later"),
        HomeserverError::CredentialRefused { .. } => {
            return Check::failed("CredentialRefused", format!("{error}; {}", put("a valid access token")));
        }
        HomeserverError::NotAdmin => {
            let hint = put("the access token of a server admin");
            return Check::failed("CredentialNotAdmin", format!("{error}; {hint}"));
        }
        HomeserverError::SharedSecretRefused => {
            let hint = put("the homeserver's registration_shared_secret");
            return Check::failed("SharedSecretRefused", format!("{error}; {hint}"));
        }
        HomeserverError::PasswordLoginDisabled => {
            ("PasswordLoginDisabled", "the bot logs in with a password: switch password login on")
        }
        HomeserverError::PasswordRefused { .. } => {
            ("PasswordRefused", "somebody has changed that password: set it back or make the bot anew")
        }
        HomeserverError::Locked { .. } => ("AccountIsLocked", "unlock that account on the homeserver"),
        HomeserverError::UserInUse { .. } => ("AccountNotOurs", "make this bot anew with another username"),
        HomeserverError::NotOffered { .. } => {
            ("AdminApiNotOffered", "spec.homeserver.url must lead to the homeserver with its admin API")
        }
        HomeserverError::NotFound { .. } => ("HomeserverNotFound", "it is tried again"),
        HomeserverError::Refused { .. } => ("HomeserverRefused", "it is tried again"),
    };
    Check::failed(reason, format!("{error}; {hint}"))
}

fn kubernetes(error: &kube_util::Error, namespace: &str, settings: &Settings) -> Check {
    let (operator_namespace, account) = &settings.service_account;
    if error.is_forbidden() {
        return Check::failed(
            "NamespaceNotOpened",
            format!(
                "the operator may not {} {} ({}); if its rights are missing in this namespace, give them with: \
                 kubectl create rolebinding ems-bots-tenant --namespace {namespace} --clusterrole ems-bots-tenant \
                 --serviceaccount {operator_namespace}:{account}",
                error.verb(),
                error.object(),
                short(&error.detail()),
            ),
        );
    }
    let reason = if error.is_invalid() { "ObjectRefused" } else { "KubernetesFailing" };
    Check::failed(reason, format!("{error}: {}", short(&error.detail())))
}

fn short(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(300).collect()
}
