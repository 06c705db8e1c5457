//! Which events of a room an act made: those of before and of after it are compared.
//!
//! In the same moment somebody else may write, too: the other bot its own power, a person whatever they like. So an event counts
//! only if it does what the act is for, in the name that the act uses.

use super::{
    acts::{Act, SentEvent},
    past,
    planner::{Identity, StepKind, user_level},
};
use crate::homeserver::{Admin, Result, StateEvent};

/// Power levels that were replaced more often between two looks are followed back no further.
const MOST_REPLACED: usize = 8;

/// The events of a room that acts replace, as they are at a look.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Marks {
    /// Current `m.room.power_levels`.
    power_levels: Option<StateEvent>,
    /// Current membership event of the bot.
    membership: Option<StateEvent>,
    /// Current membership event of whoever is brought back.
    recalled: Option<StateEvent>,
}

impl Marks {
    /// Those of a room's state; `recalled` is whoever was brought back, or is about to be.
    pub(super) fn of(state: &[StateEvent], identity: &Identity, recalled: Option<&str>) -> Self {
        let mark = |event_type: &str, key: &str| {
            state.iter().find(|event| event.event_type == event_type && event.state_key == key).cloned()
        };
        Self {
            power_levels: mark("m.room.power_levels", ""),
            membership: mark("m.room.member", identity.bot.as_str()),
            recalled: recalled.and_then(|user| mark("m.room.member", user)),
        }
    }

    /// What `act` made the homeserver send in somebody else's name, between the look that found `self` and the one that found
    /// `after`.
    pub(super) async fn sent(
        &self,
        after: &Self,
        act: &Act,
        admin: &dyn Admin,
        identity: &Identity,
    ) -> Result<Vec<SentEvent>> {
        let mut sent = Vec::new();
        if matches!(act.kind, StepKind::MakeAdmin | StepKind::Raise) {
            sent.extend(self.raises(after, admin, identity).await?);
        }
        sent.extend(self.membership(after, act.kind).cloned());
        // Of those who could give power the homeserver takes whom it likes.
        let is_in_its_name = |event: &StateEvent| match act.kind {
            StepKind::MakeAdmin => event.sender != identity.bot.as_str(),
            _ => act.on_behalf_of.as_deref() == Some(event.sender.as_str()),
        };
        Ok(sent.into_iter().filter(is_in_its_name).map(told).collect())
    }

    /// The power levels of since then by which the bot gained power, the newest first: another one may follow at once.
    async fn raises(&self, after: &Self, admin: &dyn Admin, identity: &Identity) -> Result<Vec<StateEvent>> {
        let level = |event: &StateEvent| user_level(&event.content, identity.bot.as_str());
        let (before, mut newest) = (&self.power_levels, after.power_levels.clone());
        let mut raises = Vec::new();
        for _ in 0..MOST_REPLACED {
            let Some(event) = newest.take().filter(|event| !is_same(before.as_ref(), Some(event))) else {
                break;
            };
            let replaced = match &event.replaces {
                Some(replaced) if before.as_ref().is_none_or(|before| before.event_id != *replaced) => {
                    admin.fetch_event(replaced).await?.as_ref().and_then(past::state_event)
                }
                _ => before.clone(),
            };
            if level(&event) > replaced.as_ref().map_or(0, level) {
                raises.push(event);
            }
            newest = replaced;
        }
        Ok(raises)
    }

    /// The membership event of since then that an act of this kind is for.
    fn membership<'a>(&self, after: &'a Self, kind: StepKind) -> Option<&'a StateEvent> {
        let (before, after, wanted) = match kind {
            StepKind::MakeAdmin | StepKind::Invite => (&self.membership, &after.membership, "invite"),
            StepKind::Unban => (&self.membership, &after.membership, "leave"),
            StepKind::Recall => (&self.recalled, &after.recalled, "invite"),
            StepKind::Return => (&self.recalled, &after.recalled, "join"),
            StepKind::Release => (&self.recalled, &after.recalled, "leave"),
            _ => return None,
        };
        let is_new = |event: &&StateEvent| !is_same(before.as_ref(), Some(event));
        after.as_ref().filter(is_new).filter(|event| event.content["membership"] == wanted)
    }
}

fn is_same(one: Option<&StateEvent>, other: Option<&StateEvent>) -> bool {
    one.map(|event| &event.event_id) == other.map(|event| &event.event_id)
}

fn told(event: StateEvent) -> SentEvent {
    SentEvent { event_id: event.event_id, event_type: event.event_type, sender: event.sender }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        domain::{Localpart, RoomId, ServerName, UserId},
        homeserver::{
            Connect as _,
            mock::{MockHomeserver, RoomKind},
        },
    };

    struct Scene {
        homeserver: MockHomeserver,
        admin: Box<dyn Admin>,
        identity: Identity,
        alice: UserId,
        room: RoomId,
    }

    impl Scene {
        fn new() -> Self {
            let server = ServerName::parse("example.org").unwrap();
            let homeserver = MockHomeserver::new(server.clone());
            let user = |name: &str| homeserver.add_user(&Localpart::parse(name).unwrap(), true);
            let (bot, alice) = (user("auditbot"), user("alice").user_id);
            let room = homeserver.create_room(&alice, "11", RoomKind::Private);
            let identity = Identity { bot: bot.user_id.clone(), server };
            Self { admin: homeserver.admin(bot), homeserver, identity, alice, room }
        }

        async fn marks(&self) -> Marks {
            let state = self.admin.room_state(&self.room, None).await.unwrap();
            Marks::of(&state, &self.identity, None)
        }

        /// Alice's power levels, with these of others; the identifier of the event.
        async fn levels(&self, of_others: &[(&str, i64)]) -> String {
            let mut users = json!({ self.alice.as_str(): 100 });
            for (user, level) in of_others {
                users[*user] = json!(level);
            }
            let content = json!({ "users": users, "state_default": 50 });
            self.homeserver.force_state(&self.room, &self.alice, "m.room.power_levels", "", content);
            self.marks().await.power_levels.unwrap().event_id
        }

        async fn sent(&self, kind: StepKind, before: &Marks) -> Vec<String> {
            let act = Act {
                id: "coverage:1:1".to_owned(),
                room_id: self.room.clone(),
                kind,
                on_behalf_of: Some(self.alice.to_string()),
                person: None,
                reason: "coverage",
            };
            let sent = before.sent(&self.marks().await, &act, &*self.admin, &self.identity).await.unwrap();
            sent.into_iter().map(|event| event.event_id).collect()
        }
    }

    const BOT: &str = "@auditbot:example.org";
    const OTHER: &str = "@adminbot:example.org";

    #[tokio::test]
    async fn power_that_somebody_else_wrote_in_that_moment_is_not_the_acts() {
        let scene = Scene::new();
        let before = scene.marks().await;
        scene.levels(&[(OTHER, 100)]).await;
        assert_eq!(scene.sent(StepKind::MakeAdmin, &before).await, [""; 0], "the other bot's");
        let ours = scene.levels(&[(OTHER, 100), (BOT, 100)]).await;
        scene.levels(&[(OTHER, 100), (BOT, 100), ("@bob:example.org", 50)]).await;
        assert_eq!(scene.sent(StepKind::MakeAdmin, &before).await, [ours], "found between two of others");
        let before = scene.marks().await;
        scene.levels(&[(BOT, 50)]).await;
        assert_eq!(scene.sent(StepKind::MakeAdmin, &before).await, [""; 0], "power taken away");
    }

    #[tokio::test]
    async fn only_a_membership_that_the_act_is_for_is_the_acts() {
        let scene = Scene::new();
        let before = scene.marks().await;
        let member = |membership: &str| json!({ "membership": membership });
        scene.homeserver.force_state(&scene.room, &scene.alice, "m.room.member", BOT, member("ban"));
        for kind in [StepKind::MakeAdmin, StepKind::Invite, StepKind::Unban] {
            assert_eq!(scene.sent(kind, &before).await, [""; 0], "{kind:?}");
        }
        let bob = UserId::parse("@bob:example.org").unwrap();
        scene.homeserver.force_state(&scene.room, &bob, "m.room.member", BOT, member("invite"));
        assert_eq!(scene.sent(StepKind::Invite, &before).await, [""; 0], "in another name");
        assert_eq!(scene.sent(StepKind::MakeAdmin, &before).await.len(), 1, "whom the homeserver takes");
        scene.homeserver.force_state(&scene.room, &scene.alice, "m.room.member", BOT, member("invite"));
        assert_eq!(scene.sent(StepKind::Invite, &before).await.len(), 1);
    }
}
