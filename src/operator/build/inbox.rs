//! What opens the inbox of a trail to the console: where the database is, the password of a role that can put
//! messages in and do nothing else, and the right to read that.

use k8s_openapi::{
    ByteString,
    api::{
        core::v1::Secret,
        rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject},
    },
};
use secrecy::ExposeSecret as _;

use super::metadata;
use crate::operator::{
    error::Problem,
    generated::{require, text},
    validate::{Validated, Workload},
};

/// A copy of what stands in other Secrets, without their keys to more. Like all Secrets it is made and never
/// changed; where the original differs it is made anew.
pub(in crate::operator) fn secret(
    bot: &Validated,
    workload: &Workload,
    database: &Secret,
    roles: &Secret,
) -> Result<Secret, Problem> {
    let mut data = std::collections::BTreeMap::new();
    let mut put = |key: &str, value: &[u8]| data.insert(key.to_owned(), ByteString(value.to_vec()));
    for key in ["host", "port", "dbname"] {
        if let Some(value) = text(database, key) {
            put(key, value.expose_secret().as_bytes());
        }
    }
    put("schema", workload.schema.as_bytes());
    put("password", require(roles, "inbox-password")?.expose_secret().as_bytes());
    if let Some(pem) = &workload.database_ca_pem {
        put("ca.crt", pem);
    }
    Ok(Secret {
        metadata: metadata(bot, bot.names.inbox()),
        immutable: Some(true),
        type_: Some("Opaque".to_owned()),
        data: Some(data),
        string_data: None,
    })
}

pub(in crate::operator) fn role(bot: &Validated) -> Role {
    Role {
        metadata: metadata(bot, bot.names.inbox()),
        rules: Some(vec![PolicyRule {
            api_groups: Some(vec![String::new()]),
            resources: Some(vec!["secrets".to_owned()]),
            resource_names: Some(vec![bot.names.inbox()]),
            verbs: vec!["get".to_owned()],
            ..PolicyRule::default()
        }]),
    }
}

pub(in crate::operator) fn role_binding(bot: &Validated, console: &(String, String)) -> RoleBinding {
    let (namespace, name) = console;
    RoleBinding {
        metadata: metadata(bot, bot.names.inbox()),
        role_ref: RoleRef {
            api_group: "rbac.authorization.k8s.io".to_owned(),
            kind: "Role".to_owned(),
            name: bot.names.inbox(),
        },
        subjects: Some(vec![Subject {
            kind: "ServiceAccount".to_owned(),
            name: name.clone(),
            namespace: Some(namespace.clone()),
            ..Subject::default()
        }]),
    }
}
