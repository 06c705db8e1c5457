//! `spec.rooms`.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::rules;

/// Which rooms the bot belongs in. Left out: every room that was created on the homeserver,
/// direct chats included.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.deny) || !has(self.only) || size(self.deny) == 0 || size(self.only) == 0")
    .message("deny and only cannot be used together: leave the denied rooms out of only"))]
pub struct RoomsSpec {
    /// Also direct chats.
    #[serde(default = "yes")]
    pub direct_messages: bool,
    /// Only rooms that were created on this homeserver. `false`: also rooms of other servers
    /// that users of this one are in.
    #[serde(default = "yes")]
    pub local_only: bool,
    /// Room IDs of rooms that the bot stays out of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000), inner(length(min = 2, max = 255)))]
    #[x_kube(validation = rules::room_ids("deny"), merge_strategy = ListMerge::Set)]
    pub deny: Vec<String>,
    /// Room IDs. If there are any, the bot stays out of all other rooms.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000), inner(length(min = 2, max = 255)))]
    #[x_kube(validation = rules::room_ids("only"), merge_strategy = ListMerge::Set)]
    pub only: Vec<String>,
    /// User IDs of people whose direct chats the bot stays out of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000), inner(length(min = 4, max = 255)))]
    #[x_kube(validation = rules::user_ids("excludeUsers"), merge_strategy = ListMerge::Set)]
    pub exclude_users: Vec<String>,
    /// Room IDs of spaces that the bot stays out of, along with all rooms below them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000), inner(length(min = 2, max = 255)))]
    #[x_kube(validation = rules::room_ids("excludeSpaces"), merge_strategy = ListMerge::Set)]
    pub exclude_spaces: Vec<String>,
    /// Regular expression. The bot stays out of rooms whose creator's user ID does not match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = rules::regular_expression("creatorPattern"))]
    pub creator_pattern: Option<String>,
    /// The bot stays out of rooms in which nothing happened for this time, for example `90d`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 6))]
    #[x_kube(validation = rules::duration("minimumLastActive"))]
    pub minimum_last_active: Option<String>,
    /// Leave rooms that the bot is in and that are left out from now on. `false`: it stays in them,
    /// and nothing that happens there is recorded any more. Where it is the last admin it makes a member one before it
    /// leaves.
    #[serde(default)]
    pub leave_excluded: bool,
    /// Text that the bot posts once in each room that it joins, so that people know why it is
    /// there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2000))]
    pub notice: Option<String>,
}

impl Default for RoomsSpec {
    fn default() -> Self {
        Self {
            direct_messages: true,
            local_only: true,
            deny: Vec::new(),
            only: Vec::new(),
            exclude_users: Vec::new(),
            exclude_spaces: Vec::new(),
            creator_pattern: None,
            minimum_last_active: None,
            leave_excluded: false,
            notice: None,
        }
    }
}

fn yes() -> bool {
    true
}
