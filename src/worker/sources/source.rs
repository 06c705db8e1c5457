//! The ways by which the trail learns of what happens, and how one can stand.

use serde::{Deserialize, Serialize};

/// A way by which the trail learns of what happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Source {
    /// What happens in the bot's rooms, as sync tells it.
    Rooms,
    /// Plaintexts of events whose key came later.
    LateKeys,
    /// What sync leaves out, and what was before the bot came.
    History,
    /// Contents of what was attached to messages.
    Attachments,
    /// Accounts and their sessions.
    Accounts,
    /// Uploads.
    Media,
    /// Media that are put into quarantine or taken out.
    Quarantine,
    /// Reports of events to the homeserver's administrators.
    Reports,
    /// Reports of users to them.
    UserReports,
    /// The homeserver's version and features.
    Homeserver,
    /// Rooms that are deleted.
    DeletedRooms,
    /// What other processes, which is the console, want recorded.
    Inbox,
    /// Requests to change a bot, of which the console is told before they are done.
    AdmissionReviews,
    /// Kubernetes' audit events, of which the console is told.
    AuditEvents,
}

impl Source {
    /// Every source.
    pub(crate) const ALL: [Self; 14] = [
        Self::Rooms,
        Self::LateKeys,
        Self::History,
        Self::Attachments,
        Self::Accounts,
        Self::Media,
        Self::Quarantine,
        Self::Reports,
        Self::UserReports,
        Self::Homeserver,
        Self::DeletedRooms,
        Self::Inbox,
        Self::AdmissionReviews,
        Self::AuditEvents,
    ];

    /// Whether the bot's session is needed to follow it, and a worker that starts has to catch up: of rooms it is said when
    /// that begins, and from a console things come or do not.
    pub(super) fn is_looked_at(self) -> bool {
        !matches!(self, Self::Rooms | Self::Inbox | Self::AdmissionReviews | Self::AuditEvents)
    }

    /// The name in the condition.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Rooms => "rooms",
            Self::LateKeys => "late keys",
            Self::History => "history",
            Self::Attachments => "attachments",
            Self::Accounts => "accounts",
            Self::Media => "media",
            Self::Quarantine => "quarantine",
            Self::Reports => "reports",
            Self::UserReports => "user reports",
            Self::Homeserver => "homeserver",
            Self::DeletedRooms => "deleted rooms",
            Self::Inbox => "inbox",
            Self::AdmissionReviews => "admission reviews",
            Self::AuditEvents => "audit events",
        }
    }

    /// The name in metrics and records.
    pub(crate) fn slug(self) -> &'static str {
        match self {
            Self::LateKeys => "late_keys",
            Self::UserReports => "user_reports",
            Self::DeletedRooms => "deleted_rooms",
            Self::AdmissionReviews => "admission_reviews",
            Self::AuditEvents => "audit_events",
            other => other.words(),
        }
    }
}

/// How a source stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is followed.
    On,
    /// It is behind, and tried again: why.
    Lagging(String),
    /// It is not followed: why.
    Off(String),
}

impl Standing {
    /// The name in metrics and records.
    pub(crate) fn slug(&self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Lagging(_) => "lagging",
            Self::Off(_) => "off",
        }
    }

    pub(super) fn why(&self) -> Option<&str> {
        match self {
            Self::On => None,
            Self::Lagging(why) | Self::Off(why) => Some(why),
        }
    }
}
