//! A bot that is being deleted, as far as it can be read. (pure)

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::DynamicObject;
use serde_json::Value;

use crate::{
    crd::{annotations, common::DeletionPolicy},
    domain::trail::TrailPoint,
};

/// What can be read of a bot whatever its specification looks like.
#[derive(Debug, Clone)]
pub struct Leaving {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// `spec.deletionPolicy`; what cannot be read is the most careful one.
    pub policy: DeletionPolicy,
    /// Where the trail stood.
    pub trail: Option<TrailPoint>,
    /// The trail has its last record.
    pub closed: bool,
    /// User id of the bot, once there was one.
    pub user_id: Option<String>,
    /// User id of the worker's admin account, once there was one.
    pub admin_user_id: Option<String>,
}

impl Leaving {
    pub(super) fn read(object: DynamicObject) -> Self {
        let data = &object.data;
        let trail = data.pointer("/status/trail").cloned();
        let text = |place: &str| data.pointer(place).and_then(Value::as_str).map(ToOwned::to_owned);
        Self {
            policy: data
                .pointer("/spec/deletionPolicy")
                .and_then(|policy| serde_json::from_value(policy.clone()).ok())
                .unwrap_or_default(),
            closed: trail.as_ref().is_some_and(|trail| trail["closed"] == true),
            trail: trail.and_then(|trail| serde_json::from_value(trail).ok()),
            user_id: text("/status/userID"),
            admin_user_id: text("/status/adminUserID"),
            metadata: object.metadata,
        }
    }

    pub(super) fn is_abandoned(&self) -> bool {
        let annotations = self.metadata.annotations.as_ref();
        annotations.and_then(|a| a.get(annotations::ABANDON_CLEANUP)).is_some_and(|value| value == "true")
    }
}
