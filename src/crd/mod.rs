//! The custom resources `AdminBot` and `AuditBot`, `ems.element.io/v1alpha1`.
//!
//! Everything that can be said about one object alone is in the schema, as a bound or as a CEL
//! rule with a sentence, so that `kubectl apply` refuses nonsense. Field docs are user
//! documentation: they end up in the schema.

#![expect(
    unreachable_pub,
    reason = "KubeSchema repeats each struct within a function, its visibility included"
)]

mod admin_bot;
pub mod annotations;
mod audit_bot;
mod audit_options;
mod bot;
pub mod common;
pub mod convert;
mod schema;
#[cfg(test)]
mod tests;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

pub use admin_bot::{AdminBot, AdminBotSpec};
pub use audit_bot::{AuditBot, AuditBotSpec};
pub use audit_options::{
    BucketSpec, CategoryRetention, MediaMode, MediaSpec, PolicyMatch, PolicySpec, RecordCategory,
    RetentionSpec, SearchSpec, Severity,
};
pub use bot::{Bot, Common};
pub use common::{AdminApi, BotStatus, HistoryStatus, RoomsStatus, TrailStatus};

/// API group of both kinds.
pub const GROUP: &str = "ems.element.io";
/// The one version there is.
pub const VERSION: &str = "v1alpha1";

/// Every definition, in the order in which they are printed.
pub fn all() -> Vec<CustomResourceDefinition> {
    vec![schema::definition::<AdminBot>(), schema::definition::<AuditBot>()]
}

/// A definition as a YAML document.
///
/// # Errors
/// Never for a definition of [`all`].
pub fn to_yaml(crd: &CustomResourceDefinition) -> Result<String, serde_yaml::Error> {
    schema::yaml(crd)
}
