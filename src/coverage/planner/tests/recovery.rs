//! The chains by which a room is recovered: each case is a room's state, and what is done in it until
//! there is nothing left to do, as a homeserver would carry it out.

use super::*;

const ALICE: &str = "@alice:here.org";
const BOB: &str = "@bob:here.org";
const CAROL: &str = "@carol:here.org";

/// A room as events, changed by steps as a homeserver does.
struct Room {
    state: Vec<StateEvent>,
    recalled: Option<String>,
    unhelpful: Vec<String>,
}

impl Room {
    fn new(version: &str, levels: Value, members: &[(&str, &str)]) -> Self {
        let mut room = Self { state: state(version, levels, &[]), recalled: None, unhelpful: Vec::new() };
        room.state[0].content["additional_creators"] = json!([]);
        room.set("m.room.join_rules", "", ALICE, json!({ "join_rule": "invite" }));
        for (user, membership) in members {
            room.set("m.room.member", user, user, json!({ "membership": membership }));
        }
        room
    }

    fn set(&mut self, event_type: &str, key: &str, sender: &str, content: Value) {
        self.state.retain(|old| (old.event_type.as_str(), old.state_key.as_str()) != (event_type, key));
        self.state.push(event(event_type, key, sender, content));
    }

    fn member(&mut self, user: &str, sender: &str, membership: &str) {
        self.set("m.room.member", user, sender, json!({ "membership": membership }));
    }

    fn membership(&self, user: &str) -> Membership {
        match content(&self.state, "m.room.member", user).and_then(|member| member["membership"].as_str()) {
            Some("join") => Membership::Joined,
            Some("invite") => Membership::Invited,
            Some("ban") => Membership::Banned,
            _ => Membership::Outside,
        }
    }

    fn facts(&self) -> RoomFacts {
        let is_local = |event: &StateEvent| event.event_type == "m.room.member" && event.state_key != BOT;
        let is_joined = |event: &StateEvent| event.content["membership"] == "join";
        RoomFacts {
            is_public: content(&self.state, "m.room.join_rules", "").unwrap()["join_rule"] == "public",
            has_local_members: self.state.iter().any(|event| is_local(event) && is_joined(event)),
            membership: self.membership(BOT),
            power: read_power(&self.state, &identity(), &self.unhelpful),
            recalled: self
                .recalled
                .as_ref()
                .map(|user| Recalled { user: user.clone(), membership: self.membership(user) }),
            succession: match candidate(&self.state, &identity(), &[]) {
                Some(Candidate::Heir(heir)) => Succession::Heir(heir),
                Some(Candidate::Admin(_)) | None => Succession::Settled,
            },
            ..private_room()
        }
    }

    fn give(&mut self, giver: &str, level: i64) {
        let mut levels = content(&self.state, "m.room.power_levels", "").unwrap().clone();
        levels["users"][BOT] = json!(level);
        self.set("m.room.power_levels", "", giver, levels);
    }

    fn carry_out(&mut self, step: &Step) {
        match step {
            Step::MakeAdmin { on_behalf_of } => {
                let Power::Known(power) = self.facts().power else { unreachable!() };
                let Grant::By { user, level } = power.grant else { panic!("nobody gives power: {step:?}") };
                assert_eq!(*on_behalf_of, user);
                self.give(&user, level);
                // `make_room_admin` invites nobody to a public room.
                if self.membership(BOT) == Membership::Outside && !self.facts().is_public {
                    self.member(BOT, &user, "invite");
                }
            }
            Step::Unban { on_behalf_of } => self.member(BOT, on_behalf_of, "leave"),
            Step::Raise { on_behalf_of, content } => {
                self.set("m.room.power_levels", "", on_behalf_of, content.clone());
            }
            Step::Invite { on_behalf_of } => self.member(BOT, on_behalf_of, "invite"),
            Step::Recall { user, on_behalf_of } => {
                self.member(user, on_behalf_of.as_deref().unwrap_or(BOT), "invite");
                self.recalled = Some(user.clone());
            }
            Step::Return { user } => {
                self.member(user, user, "join");
                self.recalled = Some(user.clone());
            }
            Step::Release { user } => self.member(user, user, "leave"),
            Step::Join { .. } => self.member(BOT, BOT, "join"),
            Step::HandOver { content, .. } => self.set("m.room.power_levels", "", BOT, content.clone()),
            Step::RefuseInvitation(_) | Step::Leave(_) => self.member(BOT, BOT, "leave"),
            Step::MarkFunctional(_) | Step::PostNotice(_) => {}
        }
    }

    /// The steps taken, each with in whose name, and where it ends.
    fn settle(&mut self) -> (Vec<(StepKind, Option<String>)>, Plan) {
        let mut steps = Vec::new();
        loop {
            match planned(&self.facts()) {
                Plan::Step(step) => {
                    steps.push((step.kind(), step.on_behalf_of().map(ToOwned::to_owned)));
                    assert!(steps.len() < 12, "{steps:?}");
                    self.carry_out(&step);
                }
                end => return (steps, end),
            }
        }
    }
}

fn by_person(kind: StepKind, user: &str) -> (StepKind, Option<String>) {
    (kind, Some(user.to_owned()))
}

fn by_bot(kind: StepKind) -> (StepKind, Option<String>) {
    (kind, None)
}

/// Power that says 100 for Alice up to version 11, and nothing from version 12 on, where she created
/// the room and needs no number.
fn alices(version: &str) -> Value {
    match version {
        "12" => json!({ "users": {} }),
        _ => json!({ "users": { ALICE: 100 } }),
    }
}

const VERSIONS: [&str; 3] = ["10", "11", "12"];

#[test]
fn an_admin_who_left_comes_back_for_a_moment() {
    use StepKind::{Join, MakeAdmin, Recall, Release, Return};
    for version in VERSIONS {
        let mut room = Room::new(version, alices(version), &[(ALICE, "leave"), (BOB, "join")]);
        let (steps, end) = room.settle();
        let expected = [
            by_person(Recall, BOB),
            by_person(Return, ALICE),
            by_person(MakeAdmin, ALICE),
            by_person(Release, ALICE),
            by_bot(Join),
        ];
        assert_eq!(steps, expected, "version {version}");
        assert_eq!(end, Plan::Covered);
        assert_eq!(room.membership(ALICE), Membership::Outside, "she left again");
    }
}

#[test]
fn a_bot_that_is_in_without_power_invites_the_admin_itself() {
    use StepKind::{MakeAdmin, Recall, Release, Return};
    for version in VERSIONS {
        let members = [(ALICE, "leave"), (BOB, "join"), (BOT, "join")];
        let (steps, end) = Room::new(version, alices(version), &members).settle();
        let expected = [
            by_bot(Recall),
            by_person(Return, ALICE),
            by_person(MakeAdmin, ALICE),
            by_person(Release, ALICE),
        ];
        assert_eq!((steps.as_slice(), end), (expected.as_slice(), Plan::Covered), "version {version}");
    }
}

#[test]
fn power_that_everybody_has_is_given_by_anybody() {
    use StepKind::{Invite, Join, Raise};
    for version in VERSIONS {
        let levels = json!({ "users_default": 100, "users": {} });
        let mut room = Room::new(version, levels, &[(ALICE, "leave"), (BOB, "join"), (CAROL, "join")]);
        let (steps, end) = room.settle();
        // The bot has the default too: nobody needs to give it anything.
        assert_eq!(steps, [by_person(Invite, BOB), by_bot(Join)]);
        assert_eq!(end, Plan::Covered);

        if version == "12" {
            // Whoever created the room has more to give, wherever they are.
            continue;
        }
        let levels = json!({ "users_default": 60, "users": { BOT: 10 } });
        let mut room = Room::new(version, levels, &[(BOB, "join"), (CAROL, "join")]);
        let (steps, end) = room.settle();
        assert_eq!(steps, [by_person(Raise, BOB), by_person(Invite, BOB), by_bot(Join)]);
        assert_eq!(end, Plan::Limited(Obstacle::NoLocalAdmin));
        let levels = content(&room.state, "m.room.power_levels", "").unwrap();
        assert_eq!(*levels, json!({ "users_default": 60, "users": { BOT: 60 } }));
    }
}

#[test]
fn a_ban_is_lifted_by_whoever_may() {
    use StepKind::{Join, MakeAdmin, Recall, Release, Return, Unban};
    for version in VERSIONS {
        let mut room = Room::new(version, alices(version), &[(ALICE, "join"), (BOT, "ban")]);
        let (steps, end) = room.settle();
        let expected = [by_person(Unban, ALICE), by_person(MakeAdmin, ALICE), by_bot(Join)];
        assert_eq!((steps.as_slice(), end), (expected.as_slice(), Plan::Covered), "version {version}");

        let mut room = Room::new(version, alices(version), &[(ALICE, "leave"), (BOB, "join"), (BOT, "ban")]);
        let (steps, end) = room.settle();
        let expected = [
            by_person(Recall, BOB),
            by_person(Return, ALICE),
            by_person(Unban, ALICE),
            by_person(MakeAdmin, ALICE),
            by_person(Release, ALICE),
            by_bot(Join),
        ];
        assert_eq!((steps.as_slice(), end), (expected.as_slice(), Plan::Covered), "version {version}");
    }
}

#[test]
fn a_ban_that_nobody_stands_above_stays() {
    // Power written for a banned bot puts it level with the creator, who can lift nothing any more.
    let levels = json!({ "users": { ALICE: 100, BOT: 100 } });
    let (steps, end) = Room::new("11", levels, &[(ALICE, "join"), (BOT, "ban")]).settle();
    assert_eq!((steps.as_slice(), end), ([].as_slice(), Plan::Blocked(Obstacle::Banned)));
    // A creator of version 12 stands above every number.
    let levels = json!({ "users": { BOT: 100 } });
    let (steps, end) = Room::new("12", levels, &[(ALICE, "join"), (BOT, "ban")]).settle();
    assert_eq!(steps[0], by_person(StepKind::Unban, ALICE));
    assert_eq!(end, Plan::Covered);
}

#[test]
fn where_nobody_has_power_the_bot_reads() {
    use StepKind::{Invite, Join};
    let members = [(BOB, "join"), (CAROL, "join")];
    let levels = json!({ "users": { "@eve:there.org": 100 } });
    let (steps, end) = Room::new("11", levels, &members).settle();
    assert_eq!(steps, [by_person(Invite, BOB), by_bot(Join)]);
    assert_eq!(end, Plan::Limited(Obstacle::NoLocalAdmin));
    // Unless not even inviting is allowed.
    let levels = json!({ "users": { "@eve:there.org": 100 }, "invite": 50 });
    let (steps, end) = Room::new("11", levels, &members).settle();
    assert_eq!((steps.as_slice(), end), ([].as_slice(), Plan::Blocked(Obstacle::NoLocalAdmin)));
}

#[test]
fn somebody_of_no_use_is_passed_over_and_leaves_again() {
    use StepKind::{Join, MakeAdmin, Recall, Release, Return};
    let levels = json!({ "users": { ALICE: 100, CAROL: 90 } });
    let members = [(ALICE, "leave"), (CAROL, "leave"), (BOB, "join")];
    let mut room = Room::new("11", levels, &members);
    room.unhelpful.push(ALICE.to_owned());
    let (steps, end) = room.settle();
    let expected = [
        by_person(Recall, BOB),
        by_person(Return, CAROL),
        by_person(MakeAdmin, CAROL),
        by_person(Release, CAROL),
        by_bot(Join),
    ];
    assert_eq!((steps.as_slice(), end), (expected.as_slice(), Plan::Limited(Obstacle::NoLocalAdmin)));

    // She was brought back, and then the homeserver refused power in her name.
    let members = [(ALICE, "join"), (BOB, "join")];
    let mut room = Room::new("11", json!({ "users": { ALICE: 100 } }), &members);
    room.unhelpful.push(ALICE.to_owned());
    room.recalled = Some(ALICE.to_owned());
    let (steps, _) = room.settle();
    assert_eq!(steps[0], by_person(Release, ALICE));
    assert_eq!(room.membership(ALICE), Membership::Outside);
}

#[test]
fn whoever_came_back_by_themselves_is_left_alone() {
    let mut room = Room::new("11", alices("11"), &[(ALICE, "join"), (BOB, "join")]);
    let (steps, _) = room.settle();
    assert!(!steps.iter().any(|(kind, _)| *kind == StepKind::Release), "{steps:?}");
}

#[test]
fn a_public_room_needs_no_invitation() {
    use StepKind::{Join, MakeAdmin, Release, Return, Unban};
    let mut room = Room::new("11", alices("11"), &[(ALICE, "leave"), (BOB, "join")]);
    room.set("m.room.join_rules", "", ALICE, json!({ "join_rule": "public" }));
    let (steps, end) = room.settle();
    let expected =
        [by_bot(Join), by_person(Return, ALICE), by_person(MakeAdmin, ALICE), by_person(Release, ALICE)];
    assert_eq!((steps.as_slice(), end), (expected.as_slice(), Plan::Covered));

    // Whoever came back to lift a ban gives the power, too, and is gone before the bot is in.
    let mut room = Room::new("11", alices("11"), &[(ALICE, "leave"), (BOB, "join"), (BOT, "ban")]);
    room.set("m.room.join_rules", "", ALICE, json!({ "join_rule": "public" }));
    let (steps, end) = room.settle();
    let expected = [
        by_person(Return, ALICE),
        by_person(Unban, ALICE),
        by_person(MakeAdmin, ALICE),
        by_person(Release, ALICE),
        by_bot(Join),
    ];
    assert_eq!((steps.as_slice(), end), (expected.as_slice(), Plan::Covered));

    // Nobody of this server is left, and others are: by their server.
    let open =
        RoomFacts { is_public: true, has_local_members: false, power: Power::NotShown, ..private_room() };
    assert_eq!(planned(&open), Plan::Blocked(Obstacle::NobodyLocal));
    let via = vec!["there.org".to_owned()];
    let open = RoomFacts { via: via.clone(), ..open };
    assert_eq!(planned(&open), Plan::Step(Step::Join { via }));
    let banned = RoomFacts { membership: Membership::Banned, ..open.clone() };
    assert_eq!(planned(&banned), Plan::Blocked(Obstacle::Banned), "and others would refuse it, every time");
    let closed = RoomFacts { is_public: false, ..open };
    assert_eq!(planned(&closed), Plan::Blocked(Obstacle::NobodyLocal));
}

#[test]
fn the_last_admin_makes_another_one_before_it_leaves() {
    let selection = RoomSelection { leave: Leave::Everything { patient: false }, ..RoomSelection::default() };
    let steps = |room: &mut Room| {
        let mut steps = Vec::new();
        while let Plan::Step(step) = plan(&room.facts(), &selection, &identity()) {
            room.carry_out(&step);
            steps.push(step);
            assert!(steps.len() < 5, "{steps:?}");
        }
        steps
    };
    let leave = Step::Leave(Exclusion::Farewell);
    for version in VERSIONS {
        // The strongest of those who are left gets it, whatever else the power levels say.
        let levels = json!({ "users": { BOT: 100, CAROL: 50 }, "ban": 70 });
        let members = [(ALICE, "leave"), (BOB, "join"), (CAROL, "join"), (BOT, "join")];
        let mut room = Room::new(version, levels, &members);
        let content = json!({ "users": { BOT: 100, CAROL: 100 }, "ban": 70 });
        let over = Step::HandOver { user: CAROL.to_owned(), content, reason: Exclusion::Farewell };
        assert_eq!(steps(&mut room), [over, leave.clone()], "version {version}");

        // Somebody else is an admin; in version 12 whoever created the room is.
        let mut room = Room::new(version, alices(version), &[(ALICE, "join"), (BOB, "join"), (BOT, "join")]);
        assert_eq!(steps(&mut room), std::slice::from_ref(&leave), "version {version}");
        // There is nobody to hand over to, or nothing to hand over.
        let mut room =
            Room::new(version, json!({ "users": { BOT: 100 } }), &[(ALICE, "leave"), (BOT, "join")]);
        assert_eq!(steps(&mut room), std::slice::from_ref(&leave), "version {version}");
        let mut room =
            Room::new(version, json!({ "users": {} }), &[(ALICE, "leave"), (BOB, "join"), (BOT, "join")]);
        assert_eq!(steps(&mut room), std::slice::from_ref(&leave), "version {version}");
    }
    // Without effect it is given up, and the bot leaves all the same.
    let members = [(ALICE, "leave"), (BOB, "join"), (BOT, "join")];
    let room = Room::new("11", json!({ "users": { BOT: 100 } }), &members);
    let facts = RoomFacts { repeated: Some((StepKind::HandOver, MOST_REPEATS)), ..room.facts() };
    assert_eq!(plan(&facts, &selection, &identity()), Plan::Step(leave));
}
