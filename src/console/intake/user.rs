//! Who a report says it was.

use serde::Deserialize;

use super::bounds;
use crate::domain::record::{Actor, Context, Relation, Subject};

/// What the text of a record ends with that anybody may have made up.
pub(super) const DOUBT: &str = "; whoever reported it did not prove to be the API server";
/// So many groups of a user are recorded.
const MAX_GROUPS: usize = 100;

/// As the API server writes a user.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct User {
    pub(super) username: Option<String>,
    pub(super) groups: Option<Vec<String>>,
    pub(super) extra: Option<std::collections::BTreeMap<String, Vec<String>>>,
}

impl User {
    pub(super) fn name(&self) -> &str {
        self.username.as_deref().unwrap_or_default()
    }

    pub(super) fn actor(&self) -> Actor {
        if self.name().is_empty() {
            return Actor::Unknown;
        }
        let groups = self.groups.iter().flatten().take(MAX_GROUPS).map(|group| bounds::text(group));
        Actor::KubernetesUser { id: bounds::text(self.name()), groups: groups.collect() }
    }

    pub(super) fn subjects(&self) -> Vec<Subject> {
        match self.name() {
            "" => Vec::new(),
            name => vec![Subject { person: bounds::text(name), role: "actor".to_owned() }],
        }
    }

    fn extra(&self, key: &str) -> Option<String> {
        let values = self.extra.as_ref()?.get(&format!("authentication.kubernetes.io/{key}"))?;
        values.first().map(|value| bounds::text(value))
    }

    /// The credential, which is what a session is here.
    pub(super) fn context(&self) -> Context {
        Context { session_id: self.extra("credential-id"), ..Context::default() }
    }

    /// The pod that a service account's token was bound to.
    pub(super) fn pod(&self) -> Option<Relation> {
        let pod = self.extra("pod-name")?;
        let namespace = self.name().strip_prefix("system:serviceaccount:")?.split(':').next()?;
        Some(Relation::new("pod", format!("{}/{pod}", bounds::text(namespace)), "actor"))
    }
}
