//! An event of `audit.k8s.io/v1`, as far as it is used.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::{bounds, kubelet, topic, user::User};

/// What the API server did for somebody. The objects in it are as deep as people make them, so they are looked into
/// only where that is of use.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Event {
    #[serde(rename = "auditID")]
    pub(super) audit_id: String,
    pub(super) stage: String,
    pub(super) verb: String,
    #[serde(rename = "requestURI")]
    request_uri: String,
    pub(super) user: User,
    pub(super) impersonated_user: Option<User>,
    #[serde(rename = "sourceIPs")]
    pub(super) source_ips: Option<Vec<String>>,
    pub(super) user_agent: Option<String>,
    pub(super) object_ref: Option<ObjectRef>,
    pub(super) response_status: Option<Status>,
    request_object: Option<Box<RawValue>>,
    response_object: Option<Box<RawValue>>,
    request_received_timestamp: Option<String>,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ObjectRef {
    pub(super) api_group: Option<String>,
    pub(super) resource: Option<String>,
    pub(super) namespace: Option<String>,
    pub(super) name: Option<String>,
    pub(super) subresource: Option<String>,
    pub(super) uid: Option<String>,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub(super) struct Status {
    code: Option<i64>,
}

/// An object in an event.
pub(super) enum Shown<'a> {
    /// What it says.
    Object(Value),
    /// It is nested too deeply to be read.
    Unreadable(&'a str),
}

impl<'a> Shown<'a> {
    fn of(raw: &'a RawValue) -> Self {
        serde_json::from_str(raw.get()).map_or(Self::Unreadable(raw.get()), Self::Object)
    }
}

impl ObjectRef {
    pub(super) fn group(&self) -> &str {
        self.api_group.as_deref().unwrap_or_default()
    }

    pub(super) fn resource(&self) -> &str {
        self.resource.as_deref().unwrap_or_default()
    }

    pub(super) fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or_default()
    }

    pub(super) fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    pub(super) fn subresource(&self) -> &str {
        self.subresource.as_deref().unwrap_or_default()
    }

    /// The same without what the name of a pod has beside it where somebody goes through the proxy: `https:name:8443`.
    fn without_port(&self) -> Self {
        let is_proxy = (self.group(), self.resource(), self.subresource()) == ("", "pods", "proxy");
        let name = match self.name().split(':').collect::<Vec<_>>()[..] {
            [name, _] | [_, name, _] if is_proxy => Some(name.to_owned()),
            _ => self.name.clone(),
        };
        Self { name, ..self.clone() }
    }

    /// `resource namespace/name`, as far as there is any of it.
    pub(super) fn describe(&self) -> String {
        let mut words = self.resource().to_owned();
        if !self.subresource().is_empty() {
            words = format!("{words}/{}", self.subresource());
        }
        bounds::text(format!("{words} {}", self.place()).trim_end())
    }

    /// `namespace/name`, as far as there is any of it.
    pub(super) fn place(&self) -> String {
        let parts: Vec<&str> =
            [self.namespace(), self.name()].into_iter().filter(|p| !p.is_empty()).collect();
        parts.join("/")
    }
}

impl Event {
    /// What the request is about.
    pub(super) fn object(&self) -> Option<ObjectRef> {
        let object = self.object_ref.as_ref()?;
        Some(kubelet::pod(object, &self.request_uri).unwrap_or_else(|| object.without_port()))
    }

    pub(super) fn code(&self) -> i64 {
        self.response_status.as_ref().and_then(|status| status.code).unwrap_or_default()
    }

    /// Each request is one record. What lasts is recorded when it begins, and when it was refused; the rest
    /// when it is done.
    pub(super) fn is_the_one(&self, object: &ObjectRef) -> bool {
        let lasts = self.verb == "watch"
            || (object.resource() == "pods" && topic::LASTING.contains(&object.subresource()));
        match self.stage.as_str() {
            "ResponseStarted" => lasts,
            "ResponseComplete" | "Panic" => !lasts || self.code() >= 300,
            _ => false,
        }
    }

    /// A change that was refused changed nothing, but somebody tried. What the API server failed at itself may have
    /// been done all the same.
    pub(super) fn was_refused(&self) -> bool {
        (400..500).contains(&self.code())
    }

    /// When the API server got the request.
    pub(super) fn received(&self) -> Option<Timestamp> {
        self.request_received_timestamp.as_deref()?.parse().ok()
    }

    /// What the object says now, or else what was asked for; `None` where the policy has neither reported, or where
    /// that was left out because it is too large.
    pub(super) fn shown(&self) -> Option<Shown<'_>> {
        self.objects().next()
    }

    /// The same of the answer and of the request.
    pub(super) fn objects(&self) -> impl Iterator<Item = Shown<'_>> {
        [&self.response_object, &self.request_object].into_iter().flatten().map(|raw| Shown::of(raw))
    }

    /// What was asked for.
    pub(super) fn asked(&self) -> Option<Shown<'_>> {
        self.request_object.as_ref().map(|raw| Shown::of(raw))
    }

    /// The same without what whoever asks can choose freely: see [`super::refused`].
    pub(super) fn coarse(&self) -> Self {
        let user = |user: &User| User { extra: None, ..user.clone() };
        Self {
            stage: self.stage.clone(),
            verb: self.verb.clone(),
            user: user(&self.user),
            impersonated_user: self.impersonated_user.as_ref().map(user),
            response_status: self.response_status.clone(),
            ..Self::default()
        }
    }
}
