//! What the operator and the worker ask of a bot of either kind.

use std::fmt::Debug;

use kube::{CustomResourceExt, Resource, core::NamespaceResourceScope};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    audit_options::MediaSpec,
    common::{
        AdminApi, BotStatus, DatabaseSpec, DeletionPolicy, ElementWebSpec, HomeserverSpec, RoomsSpec,
        SuspendCapture, WorkerSpec,
    },
};
use crate::domain::{BotKind, BotName};

/// The part of the specification that both kinds have.
#[derive(Debug, Clone, Copy)]
pub struct Common<'a> {
    /// `spec.homeserver`.
    pub homeserver: &'a HomeserverSpec,
    /// `spec.username`.
    pub username: &'a str,
    /// `spec.displayName`.
    pub display_name: &'a str,
    /// `spec.rooms`.
    pub rooms: &'a RoomsSpec,
    /// `spec.database`.
    pub database: &'a DatabaseSpec,
    /// `spec.elementWeb`.
    pub element_web: Option<&'a ElementWebSpec>,
    /// `spec.suspend`.
    pub suspend: bool,
    /// `spec.suspendCapture`.
    pub suspend_capture: SuspendCapture,
    /// `spec.deletionPolicy`.
    pub deletion_policy: DeletionPolicy,
    /// `spec.worker`.
    pub worker: &'a WorkerSpec,
}

/// A custom resource of one of the two kinds.
pub trait Bot:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + CustomResourceExt
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    /// Which kind.
    const KIND: BotKind;

    /// The part of the specification that both kinds have.
    fn common(&self) -> Common<'_>;

    /// The status, if there is one yet.
    fn status(&self) -> Option<&BotStatus>;

    /// What is kept of attachments: only one of the kinds keeps any.
    fn media(&self) -> Option<&MediaSpec> {
        None
    }

    /// Fields of this kind alone that are in use although this release does nothing with them.
    fn fields_of_kind_without_effect(&self) -> Vec<&'static str> {
        Vec::new()
    }

    /// Every field in use that this release does nothing with, as a path from the root.
    fn fields_without_effect(&self) -> Vec<&'static str> {
        let common = self.common();
        let mut fields = Vec::new();
        if matches!(common.homeserver.admin_api(), Some(AdminApi::Mas(_))) {
            fields.push("spec.homeserver.adminApi.mas");
        }
        if common.element_web.is_some() {
            fields.push("spec.elementWeb");
        }
        if common.homeserver.public_url.is_some() {
            fields.push("spec.homeserver.publicURL");
        }
        if common.database.eraser.is_some() {
            fields.push("spec.database.eraser");
        }
        fields.extend(self.fields_of_kind_without_effect());
        fields
    }

    /// Schema of the trail in its database.
    fn database_schema(&self) -> &str {
        self.common().database.schema.as_deref().unwrap_or(Self::KIND.slug())
    }

    /// Kind, namespace and name. Empty where the API server has given none yet.
    fn bot_name(&self) -> BotName {
        BotName {
            namespace: self.meta().namespace.clone().unwrap_or_default(),
            name: self.meta().name.clone().unwrap_or_default(),
            kind: Self::KIND,
        }
    }

    /// An annotation's value.
    fn annotation(&self, annotation: &str) -> Option<&str> {
        self.meta().annotations.as_ref()?.get(annotation).map(String::as_str)
    }

    /// Whether an annotation says `true`.
    fn is_annotated(&self, annotation: &str) -> bool {
        self.annotation(annotation) == Some("true")
    }
}
