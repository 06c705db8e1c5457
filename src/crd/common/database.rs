//! `spec.database`.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{
    refs::{CaSecretRef, RoleRef, SecretRef},
    rules,
};

/// Secret that is used when `database` is left out.
pub const DEFAULT_DATABASE_SECRET: &str = "ems-bots-database";

/// The Postgres database that holds the bot's audit trail.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::immutable_optional("schema"))]
pub struct DatabaseSpec {
    /// Secret with the keys `host`, `port`, `dbname`, `username` and `password` of the database's
    /// owner: the application Secret of a CloudNativePG cluster fits as it is. Left out: the
    /// Secret `ems-bots-database`.
    #[serde(default = "default_secret")]
    pub secret_ref: SecretRef,
    /// Certificates of a private certificate authority that signed the database's certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<CaSecretRef>,
    /// Schema in the database. Left out: `adminbot` or `auditbot`, by kind. Cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 40))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z][a-z0-9_]*$') && !self.startsWith('pg_') && !(self in ['public', 'information_schema'])")
        .message("schema must be a Postgres schema of the bot's own: lower-case letters, digits and underscores, beginning with a letter; public, information_schema and names that begin with pg_ are not possible"))]
    pub schema: Option<String>,
    /// Role that appends to the trail, where the owner may not create roles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writer: Option<RoleRef>,
    /// Role that reads the trail, where the owner may not create roles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reader: Option<RoleRef>,
    /// Role that erases content, where that shall not be the owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eraser: Option<RoleRef>,
}

impl Default for DatabaseSpec {
    fn default() -> Self {
        Self {
            secret_ref: default_secret(),
            ca_secret_ref: None,
            schema: None,
            writer: None,
            reader: None,
            eraser: None,
        }
    }
}

fn default_secret() -> SecretRef {
    SecretRef { name: DEFAULT_DATABASE_SECRET.to_owned() }
}
