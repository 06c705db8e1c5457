//! The CEL rules that several fields share, each with a sentence that a person understands.
//!
//! They are rules and not `pattern`s because a pattern answers with a regular expression.

use kube::core::Rule;

fn refuse_unless(rule: impl Into<String>, message: impl Into<String>) -> Rule {
    let message: String = message.into();
    Rule::new(rule).message(message.as_str())
}

/// A required field that never changes.
pub(crate) fn immutable(field: &str) -> Rule {
    refuse_unless(
        "self == oldSelf",
        format!("{field} cannot be changed; delete the bot and create it anew with the other value"),
    )
}

/// An optional field that never changes, neither by being added nor by being removed. Belongs on
/// the object that holds the field: a rule on the field itself is not asked when it comes or goes.
pub(crate) fn immutable_optional(field: &str) -> Rule {
    refuse_unless(
        format!(
            "has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})"
        ),
        format!("{field} cannot be added, changed or removed later; delete the bot and create it anew"),
    )
}

/// An `http` or `https` URL that holds no credential.
pub(crate) fn http_url(field: &str) -> Rule {
    refuse_unless(
        "self.matches('^https?://([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\\\\[[0-9a-fA-F:]+\\\\])(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?$')",
        format!(
            "{field} must be an http:// or https:// address of a host, with port and path if need be, but without user name, password, query and fragment"
        ),
    )
}

/// Name of a Secret in the same namespace.
pub(crate) fn secret_name() -> Rule {
    refuse_unless(
        "self.matches('^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$')",
        "name must be the name of a Secret in the bot's own namespace: lower-case letters, digits, dots and hyphens",
    )
}

/// A key in a Secret.
pub(crate) fn secret_key() -> Rule {
    refuse_unless(
        "self.matches('^[A-Za-z0-9._-]+$')",
        "key must be a key of the Secret: letters, digits, dots, hyphens and underscores",
    )
}

/// Server name of a homeserver.
pub(crate) fn server_name() -> Rule {
    refuse_unless(
        "self.matches('^([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\\\\[[0-9a-fA-F:]+\\\\])(:[0-9]{1,5})?$')",
        "serverName must be the name of the homeserver as it stands in user IDs after the colon, for example example.org, not a URL",
    )
}

/// Localpart of the bot's account.
pub(crate) fn localpart() -> Rule {
    refuse_unless(
        "self.matches('^[a-z][a-z0-9._=/+-]*$')",
        "username must be the part of the user ID between @ and the colon: a lower-case letter, then a-z, 0-9 and ._=/+-",
    )
}

/// The two user ids (the bot's and its worker's admin account) must fit into 255 characters.
pub(crate) fn user_id_fits() -> Rule {
    refuse_unless(
        "size(self.username) + size(self.homeserver.serverName) <= 238",
        "username and serverName are too long together: the user ID of the bot's admin account would exceed 255 characters",
    )
}

/// Text for people: one line.
pub(crate) fn one_line(field: &str) -> Rule {
    refuse_unless(
        "!self.matches('[\\\\x00-\\\\x1f\\\\x7f]')",
        format!("{field} must be one line of text without control characters"),
    )
}

/// A list of room ids.
pub(crate) fn room_ids(field: &str) -> Rule {
    refuse_unless(
        "self.all(id, id.matches('^![^\\\\x00-\\\\x20]+$'))",
        format!(
            "{field} must list room IDs, which begin with an exclamation mark, for example !abc:example.org; aliases and names do not work"
        ),
    )
}

/// A list of user ids.
pub(crate) fn user_ids(field: &str) -> Rule {
    refuse_unless(
        "self.all(id, id.matches('^@[^\\\\x00-\\\\x20:]+:[^\\\\x00-\\\\x20]+$'))",
        format!("{field} must list full user IDs, for example @alice:example.org"),
    )
}

/// A span of time.
pub(crate) fn duration(field: &str) -> Rule {
    refuse_unless(
        "self.matches('^[1-9][0-9]{0,4}[smhd]$')",
        format!("{field} must be a whole number followed by s, m, h or d, for example 90d"),
    )
}

/// A regular expression. The left side is always false or true; an expression that cannot be
/// compiled is an error, which refuses the object.
pub(crate) fn regular_expression(field: &str) -> Rule {
    refuse_unless(
        "'@a:b'.matches(self) in [true, false]",
        format!("{field} must be a regular expression (RE2 syntax), for example ^@bridge_.*:example[.]org$"),
    )
}

/// A quantity above zero.
pub(crate) fn quantity(field: &str, example: &str) -> Rule {
    refuse_unless(
        "isQuantity(self) && quantity(self).isGreaterThan(quantity('0'))",
        format!("{field} must be a quantity above zero, for example {example}"),
    )
}

/// A quantity as the worker reads one: without sign, exponent and the units that nothing here is as
/// small or as large as.
pub(crate) fn plain_size(field: &str) -> Rule {
    refuse_unless(
        "self.matches('^([0-9]{1,9}([.][0-9]{0,9})?|[.][0-9]{1,9})(m|k|M|G|Ki|Mi|Gi)?$')",
        format!(
            "{field} must be a number of at most nine digits before and after the point, with k, M, G, Ki, Mi or Gi if need be"
        ),
    )
}

/// A quantity with an upper bound.
pub(crate) fn at_most(field: &str, most: &str) -> Rule {
    refuse_unless(
        format!("!isQuantity(self) || quantity(self).compareTo(quantity('{most}')) <= 0"),
        format!("{field} can be {most} at most"),
    )
}

/// A quantity that may grow only.
pub(crate) fn only_grows(field: &str) -> Rule {
    refuse_unless(
        "!isQuantity(self) || !isQuantity(oldSelf) || quantity(self).compareTo(quantity(oldSelf)) >= 0",
        format!("{field} can be raised, not lowered: volumes do not shrink"),
    )
}

/// A host name with or without port.
pub(crate) fn host(field: &str) -> Rule {
    refuse_unless(
        "self.matches('^[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?$')",
        format!(
            "{field} must be a host name in lower case, with a port if need be, for example app.example.org; not a URL"
        ),
    )
}

/// `metadata.name` of a bot: names of children are made of it.
pub(crate) fn object_name() -> Rule {
    refuse_unless(
        "size(self.metadata.name) <= 40 && self.metadata.name.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?$')",
        "metadata.name must have at most 40 characters, and lower-case letters, digits and hyphens only: the names of the bot's pods and Secrets are made of it",
    )
}

/// A trail that was reported once stays reported.
pub(crate) fn trail_stays() -> Rule {
    refuse_unless(
        "!has(oldSelf.status) || !has(oldSelf.status.trail) || (has(self.status) && has(self.status.trail))",
        "status.trail cannot be removed: it is the promise that the audit trail is complete",
    )
}

/// Within an epoch a trail grows or stays as it is; epochs grow.
pub(crate) fn trail_grows() -> Rule {
    refuse_unless(
        "self.epoch > oldSelf.epoch || (self.epoch == oldSelf.epoch && (self.size > oldSelf.size || (self.size == oldSelf.size && self.rootHash == oldSelf.rootHash)))",
        "status.trail cannot shrink, go back to an earlier epoch, or change its root hash at the same size",
    )
}
