//! The kind `AdminBot`.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::{
    bot::{Bot, Common},
    common::{
        BotStatus, DatabaseSpec, DeletionPolicy, ElementWebSpec, HomeserverSpec, RoomsSpec, SuspendCapture,
        WorkerSpec, rules,
    },
};
use crate::domain::BotKind;

/// An account with administrator power in every room of a homeserver, for people to sign in to.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[kube(
    group = "ems.element.io",
    version = "v1alpha1",
    kind = "AdminBot",
    plural = "adminbots",
    singular = "adminbot",
    shortname = "adb",
    category = "ems",
    namespaced,
    status = "BotStatus",
    derive = "PartialEq",
    doc = "An account with administrator power in every room of a homeserver, for people to sign in to.",
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
#[x_kube(validation = rules::user_id_fits())]
pub struct AdminBotSpec {
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
    /// The Postgres database that holds the bot's audit trail, which for an Admin Bot holds administrative acts only.
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
}

fn default_username() -> String {
    BotKind::Admin.slug().to_owned()
}

fn default_display_name() -> String {
    "Admin Bot".to_owned()
}

impl Bot for AdminBot {
    const KIND: BotKind = BotKind::Admin;

    fn common(&self) -> Common<'_> {
        let AdminBotSpec {
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
}
