//! What the removal of a bot would do to a room, without doing it.

use super::{
    facts::{Surroundings, ask_for_heir, gather},
    planner::{Identity, Obstacle, Plan, Step, Succession, plan},
};
use crate::{
    domain::selection::{Leave, RoomSelection},
    homeserver::{Admin, Result, RoomListing},
};

/// What would happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removal {
    /// The bot leaves; somebody else is an admin, or the bot is none itself.
    Leaves,
    /// The bot leaves; only another bot is an admin besides. If both are removed, the last one hands over.
    LeavesToBot,
    /// This member becomes an admin, then the bot leaves.
    HandsOver(String),
    /// The bot is not in it any more, or the room has to be left without asking.
    Stays(Option<Obstacle>),
}

/// Looks at a room that the bot is in.
pub async fn of_removal(admin: &dyn Admin, listing: &RoomListing, identity: &Identity) -> Result<Removal> {
    let selection = RoomSelection { leave: Leave::Everything { patient: false }, ..RoomSelection::default() };
    let around = Surroundings { is_joined: true, ..Surroundings::default() };
    let mut seen = gather(admin, listing, &selection, identity, &around).await?;
    ask_for_heir(admin, &mut seen, &selection, identity).await?;
    let facts = seen.facts;
    Ok(match plan(&facts, &selection, identity) {
        Plan::Step(Step::HandOver { user, .. }) => Removal::HandsOver(user),
        Plan::Step(Step::Leave(_)) if facts.succession == Succession::Bot => Removal::LeavesToBot,
        Plan::Step(Step::Leave(_)) => Removal::Leaves,
        Plan::Blocked(obstacle) => Removal::Stays(Some(obstacle)),
        Plan::Step(_) | Plan::Covered | Plan::Limited(_) | Plan::Excluded(_) => Removal::Stays(None),
    })
}
