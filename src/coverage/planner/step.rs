//! What can be done in a room.

use serde_json::Value;

use super::{Exclusion, Obstacle};

/// What to do next in a room.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Have the homeserver give the bot power, and an invitation where one is needed, in the name
    /// of a local user.
    MakeAdmin {
        /// Whose name the homeserver will use, as far as can be foreseen.
        on_behalf_of: String,
    },
    /// Lift the bot's ban in somebody's name.
    Unban {
        /// In whose.
        on_behalf_of: String,
    },
    /// Give the bot power in the name of a member who has it by default.
    Raise {
        /// In whose.
        on_behalf_of: String,
        /// The power levels to write.
        content: Value,
    },
    /// Invite the bot in somebody's name.
    Invite {
        /// In whose.
        on_behalf_of: String,
    },
    /// Invite somebody who left, and whose power is needed.
    Recall {
        /// Whom.
        user: String,
        /// In whose name; the bot's own if nobody's.
        on_behalf_of: Option<String>,
    },
    /// Join in the name of somebody who left, and whose power is needed.
    Return {
        /// In whose.
        user: String,
    },
    /// Leave in the name of somebody who was brought back.
    Release {
        /// In whose.
        user: String,
    },
    /// Join.
    Join {
        /// Servers to join by, where nobody of this one is in the room.
        via: Vec<String>,
    },
    /// Refuse an invitation to a room outside the selection.
    RefuseInvitation(Exclusion),
    /// Make a member an admin before leaving: the bot is the last one.
    HandOver {
        /// Whom.
        user: String,
        /// The power levels to write.
        content: Value,
        /// Why the bot leaves.
        reason: Exclusion,
    },
    /// Leave a room outside the selection.
    Leave(Exclusion),
    /// Write [`super::FUNCTIONAL_MEMBERS`] with this content.
    MarkFunctional(Value),
    /// Post the notice of the selection.
    PostNotice(String),
}

/// A step without its particulars.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StepKind {
    /// [`Step::MakeAdmin`].
    MakeAdmin,
    /// [`Step::Unban`].
    Unban,
    /// [`Step::Raise`].
    Raise,
    /// [`Step::Invite`].
    Invite,
    /// [`Step::Recall`].
    Recall,
    /// [`Step::Return`].
    Return,
    /// [`Step::Release`].
    Release,
    /// [`Step::Join`].
    Join,
    /// [`Step::RefuseInvitation`].
    RefuseInvitation,
    /// [`Step::HandOver`].
    HandOver,
    /// [`Step::Leave`].
    Leave,
    /// [`Step::MarkFunctional`].
    MarkFunctional,
    /// [`Step::PostNotice`].
    PostNotice,
}

impl StepKind {
    /// Every kind.
    pub const ALL: [Self; 13] = [
        Self::MakeAdmin,
        Self::Unban,
        Self::Raise,
        Self::Invite,
        Self::Recall,
        Self::Return,
        Self::Release,
        Self::Join,
        Self::RefuseInvitation,
        Self::HandOver,
        Self::Leave,
        Self::MarkFunctional,
        Self::PostNotice,
    ];

    /// Short `snake_case` name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MakeAdmin => "make_admin",
            Self::Unban => "unban",
            Self::Raise => "raise",
            Self::Invite => "invite",
            Self::Recall => "recall",
            Self::Return => "return",
            Self::Release => "release",
            Self::Join => "join",
            Self::RefuseInvitation => "refuse_invitation",
            Self::HandOver => "hand_over",
            Self::Leave => "leave",
            Self::MarkFunctional => "mark_functional",
            Self::PostNotice => "post_notice",
        }
    }
}

impl Step {
    /// Its kind.
    pub fn kind(&self) -> StepKind {
        match self {
            Self::MakeAdmin { .. } => StepKind::MakeAdmin,
            Self::Unban { .. } => StepKind::Unban,
            Self::Raise { .. } => StepKind::Raise,
            Self::Invite { .. } => StepKind::Invite,
            Self::Recall { .. } => StepKind::Recall,
            Self::Return { .. } => StepKind::Return,
            Self::Release { .. } => StepKind::Release,
            Self::Join { .. } => StepKind::Join,
            Self::RefuseInvitation(_) => StepKind::RefuseInvitation,
            Self::HandOver { .. } => StepKind::HandOver,
            Self::Leave(_) => StepKind::Leave,
            Self::MarkFunctional(_) => StepKind::MarkFunctional,
            Self::PostNotice(_) => StepKind::PostNotice,
        }
    }

    /// In whose name it is done, if not in the bot's own.
    pub fn on_behalf_of(&self) -> Option<&str> {
        match self {
            Self::MakeAdmin { on_behalf_of }
            | Self::Unban { on_behalf_of }
            | Self::Raise { on_behalf_of, .. }
            | Self::Invite { on_behalf_of } => Some(on_behalf_of),
            Self::Recall { on_behalf_of, .. } => on_behalf_of.as_deref(),
            Self::Return { user } | Self::Release { user } => Some(user),
            Self::Join { .. }
            | Self::RefuseInvitation(_)
            | Self::HandOver { .. }
            | Self::Leave(_)
            | Self::MarkFunctional(_)
            | Self::PostNotice(_) => None,
        }
    }

    /// Who is brought back, leaves again, or becomes an admin.
    pub fn person(&self) -> Option<&str> {
        match self {
            Self::Recall { user, .. }
            | Self::Return { user }
            | Self::Release { user }
            | Self::HandOver { user, .. } => Some(user),
            _ => None,
        }
    }

    /// Why it is done, as a code: that of the obstacle that it removes, or of the reason for which a
    /// room is left.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unban { .. } => Obstacle::Banned.as_str(),
            Self::Raise { .. }
            | Self::Invite { .. }
            | Self::Recall { .. }
            | Self::Return { .. }
            | Self::Release { .. } => Obstacle::NoLocalAdmin.as_str(),
            Self::RefuseInvitation(reason) | Self::HandOver { reason, .. } | Self::Leave(reason) => {
                reason.as_str()
            }
            Self::MakeAdmin { .. } | Self::Join { .. } | Self::MarkFunctional(_) | Self::PostNotice(_) => {
                "coverage"
            }
        }
    }
}
