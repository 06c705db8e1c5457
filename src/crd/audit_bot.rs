//! The kind `AuditBot`.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::{
    audit_options::{MediaSpec, PolicySpec, RetentionSpec, SearchSpec},
    bot::{Bot, Common},
    common::{
        BotStatus, DatabaseSpec, DeletionPolicy, ElementWebSpec, HomeserverSpec, RoomsSpec, SuspendCapture,
        WorkerSpec, rules,
    },
};
use crate::domain::BotKind;

/// An account that reads every conversation of a homeserver, encrypted ones included, and records it in an audit trail.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[kube(
    group = "ems.element.io",
    version = "v1alpha1",
    kind = "AuditBot",
    plural = "auditbots",
    singular = "auditbot",
    shortname = "aub",
    category = "ems",
    namespaced,
    status = "BotStatus",
    derive = "PartialEq",
    doc = "An account that reads every conversation of a homeserver, encrypted ones included, and records it in an audit trail.",
    validation = rules::object_name(),
    validation = rules::trail_stays(),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Server", type_ = "string", json_path = ".spec.homeserver.serverName"),
    printcolumn(name = "Rooms", type_ = "integer", json_path = ".status.rooms.covered"),
    printcolumn(name = "Records", type_ = "integer", json_path = ".status.trail.size", priority = 1),
    printcolumn(name = "Plan", type_ = "string", json_path = ".spec.homeserver.plan", priority = 1),
    printcolumn(name = "User", type_ = "string", json_path = ".status.userID", priority = 1),
    printcolumn(name = "Suspended", type_ = "boolean", json_path = ".spec.suspend", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = rules::user_id_fits(),
    validation = Rule::new("!has(oldSelf.retention) || !has(oldSelf.retention.minimumDays) || (has(self.retention) && has(self.retention.minimumDays) && self.retention.minimumDays >= oldSelf.retention.minimumDays)")
        .message("minimumDays can be raised, not lowered or removed")
)]
pub struct AuditBotSpec {
    /// The homeserver that the bot works for.
    pub homeserver: HomeserverSpec,
    /// Localpart of the bot's account. Cannot be changed.
    #[serde(default = "default_username")]
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = rules::localpart(), validation = rules::immutable("username"))]
    pub username: String,
    /// Display name of the bot's account.
    #[serde(default = "default_display_name")]
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(validation = rules::one_line("displayName"))]
    pub display_name: String,
    /// Which rooms the bot belongs in.
    #[serde(default)]
    pub rooms: RoomsSpec,
    /// The Postgres database that holds the bot's audit trail.
    #[serde(default)]
    pub database: DatabaseSpec,
    /// The Element Web in which people sign in as the bot. Has no effect yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub element_web: Option<ElementWebSpec>,
    /// Stop the bot and lock its account, keeping everything.
    #[serde(default)]
    pub suspend: bool,
    /// What happens to the time during which the bot is suspended.
    #[serde(default)]
    pub suspend_capture: SuspendCapture,
    /// What happens on the homeserver when the bot is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// The pod that works for the bot.
    #[serde(default)]
    pub worker: WorkerSpec,
    /// How long the audit trail keeps what it holds. Has no effect yet: everything is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<RetentionSpec>,
    /// What is kept of images, files, audio and video that are attached to messages. Left out:
    /// only the messages that mention them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media: Option<MediaSpec>,
    /// How messages are made searchable. Has no effect yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<SearchSpec>,
    /// Rules of the organisation that every record is compared with. Have no effect yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub policies: Vec<PolicySpec>,
}

fn default_username() -> String {
    BotKind::Audit.slug().to_owned()
}

fn default_display_name() -> String {
    "Audit Bot".to_owned()
}

impl Bot for AuditBot {
    const KIND: BotKind = BotKind::Audit;

    fn common(&self) -> Common<'_> {
        let AuditBotSpec {
            homeserver,
            username,
            display_name,
            rooms,
            database,
            element_web,
            suspend,
            suspend_capture,
            deletion_policy,
            worker,
            ..
        } = &self.spec;
        Common {
            homeserver,
            username,
            display_name,
            rooms,
            database,
            element_web: element_web.as_ref(),
            suspend: *suspend,
            suspend_capture: *suspend_capture,
            deletion_policy: *deletion_policy,
            worker,
        }
    }

    fn status(&self) -> Option<&BotStatus> {
        self.status.as_ref()
    }

    fn media(&self) -> Option<&MediaSpec> {
        self.spec.media.as_ref()
    }

    fn fields_of_kind_without_effect(&self) -> Vec<&'static str> {
        [
            ("spec.retention", self.spec.retention.is_some()),
            ("spec.search", self.spec.search.is_some()),
            ("spec.policies", !self.spec.policies.is_empty()),
        ]
        .into_iter()
        .filter_map(|(field, used)| used.then_some(field))
        .collect()
    }
}
