//! What the removal of a bot would do to a room, without doing it.

use std::time::Duration;

use super::{
    facts::{Surroundings, ask_for_heir, gather},
    planner::{Identity, Obstacle, Plan, Step, Succession, plan},
};
use crate::{
    domain::selection::{Leave, RoomSelection},
    homeserver::{Admin, HomeserverError, Result, RoomListing},
};

/// So often a homeserver may ask to wait, for one room.
const MOST_WAITS: u32 = 10;
/// Where it does not say for how long.
const WAIT: Duration = Duration::from_secs(1);

/// What would happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removal {
    /// The bot leaves; somebody else is an admin, or the bot is none itself.
    Leaves,
    /// The bot leaves; only other bots are admins besides. If those are removed, too, the last one hands over.
    LeavesToBot,
    /// This member becomes an admin, then the bot leaves.
    HandsOver(String),
    /// The bot is not in it any more, or the room has to be left without asking.
    Stays(Option<Obstacle>),
}

/// Looks at a room that the bot is in, once more where the homeserver asks to wait.
pub async fn of_removal(admin: &dyn Admin, listing: &RoomListing, identity: &Identity) -> Result<Removal> {
    for _ in 0..MOST_WAITS {
        match look(admin, listing, identity).await {
            Err(HomeserverError::RateLimited { retry_after, .. }) => {
                tokio::time::sleep(retry_after.unwrap_or(WAIT)).await;
            }
            // It was deleted after it was listed.
            Err(HomeserverError::NotFound { .. }) => return Ok(Removal::Stays(None)),
            outcome => return outcome,
        }
    }
    look(admin, listing, identity).await
}

async fn look(admin: &dyn Admin, listing: &RoomListing, identity: &Identity) -> Result<Removal> {
    let selection = RoomSelection { leave: Leave::Everything { patient: false }, ..RoomSelection::default() };
    let around = Surroundings { is_joined: true, ..Surroundings::default() };
    let mut seen = gather(admin, listing, &selection, identity, &around).await?;
    ask_for_heir(admin, &mut seen, &selection, identity).await?;
    let facts = seen.facts;
    Ok(match plan(&facts, &selection, identity) {
        Plan::Step(Step::HandOver { user, .. }) => Removal::HandsOver(user),
        Plan::Step(Step::Leave(_)) if matches!(facts.succession, Succession::Bot { .. }) => {
            Removal::LeavesToBot
        }
        Plan::Step(Step::Leave(_)) => Removal::Leaves,
        Plan::Blocked(obstacle) => Removal::Stays(Some(obstacle)),
        Plan::Step(_) | Plan::Wait | Plan::Covered | Plan::Limited(_) | Plan::Excluded(_) => {
            Removal::Stays(None)
        }
    })
}
