//! What only an Audit Bot has in its specification.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{CaSecretRef, SecretRef, rules};
use crate::domain::worker::bucket_place;

/// How long the audit trail keeps what it holds. A legal hold beats all of it.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.minimumDays) || ((!has(self.keepForDays) || self.keepForDays >= self.minimumDays) && (!has(self.categories) || self.categories.all(c, c.keepForDays >= self.minimumDays)))")
        .message("keepForDays cannot be below minimumDays")
)]
pub struct RetentionSpec {
    /// Content older than this is erased. Left out: it is kept for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 36500))]
    pub keep_for_days: Option<i32>,
    /// Nothing younger than this is erased, whatever the other fields say later. Can be raised,
    /// not lowered or removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 36500))]
    pub minimum_days: Option<i32>,
    /// Other times for some categories of records.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["category".into()]))]
    pub categories: Vec<CategoryRetention>,
}

/// How long records of one category are kept.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct CategoryRetention {
    /// The category.
    pub category: RecordCategory,
    /// Content older than this is erased.
    #[schemars(range(min = 1, max = 36500))]
    pub keep_for_days: i32,
}

/// The five categories of records.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordCategory {
    /// Changes of rooms, bots, integrations and configurations.
    ResourceChange,
    /// What users do: messages, membership, permission changes.
    UserActivity,
    /// Upgrades, security and policy changes.
    SystemChange,
    /// Logins, logouts and who read what.
    AccessEvent,
    /// Accounts, billing, organisation.
    AdminOperation,
}

/// What is kept of images, files, audio and video that are attached to messages.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct MediaSpec {
    /// How much of it.
    #[serde(default)]
    pub mode: MediaMode,
    /// Larger ones are recorded without their content, and without a hash of it. At most 128Mi: the worker
    /// holds up to two attachments in its memory.
    #[serde(default = "maximum_size")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = rules::plain_size("maximumSize"), validation = rules::quantity("maximumSize", "50Mi"), validation = rules::at_most("maximumSize", "128Mi"))]
    pub maximum_size: String,
    /// The S3-compatible bucket that the content goes into. Left out: it goes into the bot's database.
    /// What was kept before a change stays where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket: Option<BucketSpec>,
}

/// A bucket of an S3-compatible service. Objects in it are named by the SHA-256 of their content.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct BucketSpec {
    /// Where pods reach the service. The Secret must carry the annotation `ems.element.io/bucket` with
    /// exactly `endpoint/name/prefix` (without a prefix: `endpoint/name`), else nothing is sent there.
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = rules::http_url("endpoint"))]
    pub endpoint: String,
    /// Name of the bucket, which must exist.
    #[schemars(length(min = 3, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$')")
        .message("name must be the name of a bucket: lower-case letters, digits, dots and hyphens"))]
    pub name: String,
    /// Region that requests are signed for.
    #[serde(default = "region")]
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?$')")
        .message("region must have lower-case letters, digits and hyphens only, for example eu-central-1"))]
    pub region: String,
    /// What the names of the objects begin with, for example `audit/example.org`. Bots that share a
    /// bucket need different ones if one bot's objects are ever to be removed by themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 200))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$')")
        .message("prefix must consist of names with letters, digits, dots, hyphens and underscores, with slashes between them only"))]
    pub prefix: Option<String>,
    /// Secret with the keys `access-key-id` and `secret-access-key`.
    pub secret_ref: SecretRef,
    /// Certificates of a private certificate authority that signed the certificate of `endpoint`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<CaSecretRef>,
}

impl BucketSpec {
    /// The bucket and the part of it that is meant.
    pub fn place(&self) -> String {
        bucket_place(&self.endpoint, &self.name, self.prefix.as_deref())
    }
}

fn region() -> String {
    "us-east-1".to_owned()
}

fn maximum_size() -> String {
    "50Mi".to_owned()
}

/// How much is kept of images, files, audio and video.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MediaMode {
    /// Name, type, size and a hash of the content, which is fetched for that and thrown away.
    #[default]
    Metadata,
    /// The content too.
    Content,
}

/// How messages are made searchable.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SearchSpec {
    /// Text search configuration of Postgres, for example `english`. The default fits every
    /// language and knows no word forms.
    #[serde(default = "language")]
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z][a-z0-9_]*$')")
        .message("language must be the name of a text search configuration of Postgres, for example simple, english or german"))]
    pub language: String,
}

fn language() -> String {
    "simple".to_owned()
}

/// A rule of the organisation: records that match it are marked and reported.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PolicySpec {
    /// Name, unique among the bot's policies.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?$')")
        .message("name must have lower-case letters, digits and hyphens only"))]
    pub name: String,
    /// What it is about, for the people who read the reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 500))]
    pub description: Option<String>,
    /// How bad a match is.
    #[serde(default)]
    pub severity: Severity,
    /// Which records match: those that satisfy every field that is given.
    #[serde(rename = "match")]
    pub matches: PolicyMatch,
}

/// How bad a match is.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Somebody should look at it.
    #[default]
    Warning,
    /// Somebody must look at it now.
    Critical,
}

/// Which records match a policy.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.categories) || has(self.actions) || has(self.actors) || has(self.rooms) || has(self.text)")
    .message("match must have at least one of categories, actions, actors, rooms and text; an empty one would match every record"))]
pub struct PolicyMatch {
    /// Any of these categories.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 5))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub categories: Vec<RecordCategory>,
    /// Any of these actions, for example `room.member.joined`, or all below one: `room.member.`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 128)))]
    #[x_kube(validation = Rule::new("self.all(action, action.matches('^[a-z][a-z0-9_.]*$'))")
        .message("actions must list names of actions: lower-case letters, digits, underscores and dots"), merge_strategy = ListMerge::Set)]
    pub actions: Vec<String>,
    /// Any of these users.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64), inner(length(min = 4, max = 255)))]
    #[x_kube(validation = rules::user_ids("actors"), merge_strategy = ListMerge::Set)]
    pub actors: Vec<String>,
    /// Any of these rooms.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64), inner(length(min = 2, max = 255)))]
    #[x_kube(validation = rules::room_ids("rooms"), merge_strategy = ListMerge::Set)]
    pub rooms: Vec<String>,
    /// Regular expression that the text contains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = rules::regular_expression("text"))]
    pub text: Option<String>,
}
