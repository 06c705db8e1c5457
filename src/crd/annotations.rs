//! Annotations that people set.

/// On a bot, `"true"`: the operator leaves it and its children as they are.
pub const PAUSED: &str = "ems.element.io/paused";
/// On a bot, `"true"`: no invitations and repairs; capture goes on.
pub const COVERAGE_PAUSED: &str = "ems.element.io/coverage-paused";
/// On a bot that is being deleted, `"true"`: do not wait for the homeserver or the database.
pub const ABANDON_CLEANUP: &str = "ems.element.io/abandon-cleanup";
/// On a Secret with a homeserver's credential: the URL that it is for.
pub const HOMESERVER: &str = "ems.element.io/homeserver";
/// On a Secret with a homeserver's credential: the proxy through which it may be sent.
pub const PROXY: &str = "ems.element.io/proxy";
/// On a Secret with the keys of a bucket: the bucket that they are for, with its endpoint and prefix.
pub const BUCKET: &str = "ems.element.io/bucket";
/// On a bot: why somebody changed it; goes into the audit trail.
pub const CHANGE_REASON: &str = "ems.element.io/change-reason";
/// On a bot: what its worker logs, for example `info,ems_bots=debug`; takes effect without a restart.
pub const LOG_FILTER: &str = "ems.element.io/log-filter";
/// On a bot, any value that was not used before: make keys, secret storage and backup anew after
/// somebody replaced or deleted them.
pub const REPAIR_ENCRYPTION: &str = "ems.element.io/repair-encryption";
