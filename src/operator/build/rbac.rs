//! Whom the worker is in the cluster, and the little that it may do there: see its own custom
//! resource and write its status.

use k8s_openapi::api::{
    core::v1::ServiceAccount,
    rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject},
};

use super::metadata;
use crate::{crd::GROUP, operator::validate::Validated};

pub(super) fn service_account(bot: &Validated) -> ServiceAccount {
    ServiceAccount {
        metadata: metadata(bot, bot.names.worker()),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}

pub(super) fn role(bot: &Validated) -> Role {
    let plural = format!("{}s", bot.kind.slug());
    let rule = |resource: String, verbs: &[&str]| PolicyRule {
        api_groups: Some(vec![GROUP.to_owned()]),
        resources: Some(vec![resource]),
        resource_names: Some(vec![bot.name.clone()]),
        verbs: verbs.iter().map(|&verb| verb.to_owned()).collect(),
        ..PolicyRule::default()
    };
    Role {
        metadata: metadata(bot, bot.names.worker()),
        rules: Some(vec![
            rule(plural.clone(), &["get", "list", "watch"]),
            rule(format!("{plural}/status"), &["patch"]),
        ]),
    }
}

pub(super) fn role_binding(bot: &Validated) -> RoleBinding {
    RoleBinding {
        metadata: metadata(bot, bot.names.worker()),
        role_ref: RoleRef {
            api_group: "rbac.authorization.k8s.io".to_owned(),
            kind: "Role".to_owned(),
            name: bot.names.worker(),
        },
        subjects: Some(vec![Subject {
            kind: "ServiceAccount".to_owned(),
            name: bot.names.worker(),
            namespace: Some(bot.namespace.clone()),
            ..Subject::default()
        }]),
    }
}
