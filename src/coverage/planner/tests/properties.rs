//! Whatever the facts are: no room is broken, no plan goes on for ever.

use proptest::prelude::*;

use super::*;

fn any_grant() -> impl Strategy<Value = Grant> {
    prop_oneof![(0_i64..=100).prop_map(by), Just(Grant::NoLocalAdmin), Just(Grant::NotEnoughPower)]
}

fn any_helpers() -> impl Strategy<Value = Helpers> {
    (any::<[bool; 6]>(), 1_i64..=100).prop_map(
        |([unban, raise, invite, bot_invites, absent, is_invited], level)| {
            let somebody = |is: bool, name: &str| is.then(|| format!("@{name}:here.org"));
            Helpers {
                unban: somebody(unban, "alice"),
                raise: somebody(raise, "bob").map(|user| Raise { user, level, content: json!({}) }),
                invite: somebody(invite, "carol"),
                bot_invites,
                absent: somebody(absent, "dave").map(|user| Absent { user, level, is_invited }),
            }
        },
    )
}

fn any_power() -> impl Strategy<Value = Power> {
    let known = (0_i64..=101, any_grant(), any_helpers())
        .prop_map(|(bot, grant, helpers)| with_helpers(bot, grant, helpers));
    prop_oneof![1 => Just(Power::Missing), 1 => Just(Power::NotShown), 6 => known]
}

fn any_facts() -> impl Strategy<Value = RoomFacts> {
    let membership = prop_oneof![
        Just(Membership::Outside),
        Just(Membership::Invited),
        Just(Membership::Joined),
        Just(Membership::Banned)
    ];
    let creator = prop_oneof![
        Just(None),
        Just(Some("@alice:here.org".to_owned())),
        Just(Some("@eve:there.org".to_owned()))
    ];
    let direct = prop_oneof![Just(None), Just(direct(&["@alice:here.org", "@bob:here.org"]))];
    let heir = Heir { user: "@erin:here.org".to_owned(), content: json!({}) };
    let bot = |goes_first| Succession::Bot { goes_first };
    let succession =
        prop_oneof![Just(Succession::Settled), Just(Succession::Heir(heir)), any::<bool>().prop_map(bot)];
    (membership, creator, direct, any_power(), any::<[bool; 8]>(), succession).prop_map(
        |(membership, creator, direct, power, bools, succession)| {
            let [is_public, has_local_members, space, inactive, owes, awaits, has_via, was_marked] = bools;
            RoomFacts {
                succession,
                membership,
                creator,
                direct,
                power,
                is_public,
                has_local_members,
                in_excluded_space: space,
                is_unclear: awaits,
                was_functional_member: was_marked,
                via: has_via.then(|| "there.org".to_owned()).into_iter().collect(),
                is_inactive: inactive,
                owes_notice: owes,
                ..private_room()
            }
        },
    )
}

fn any_selection() -> impl Strategy<Value = RoomSelection> {
    let leave = prop_oneof![
        Just(Leave::Nothing),
        Just(Leave::Excluded),
        any::<bool>().prop_map(|patient| Leave::Everything { patient }),
    ];
    (any::<[bool; 7]>(), leave).prop_map(|([direct, local, deny, only, users, pattern, notice], leave)| {
        let room = private_room().room_id;
        RoomSelection {
            direct_messages: direct,
            local_only: local,
            deny: deny.then(|| room.clone()).into_iter().collect(),
            only: only.then_some(room).into_iter().collect(),
            exclude_users: users.then(|| UserId::parse("@bob:here.org").unwrap()).into_iter().collect(),
            creator_pattern: pattern.then(|| regex::Regex::new("alice").unwrap()),
            minimum_last_active: Some(std::time::Duration::from_secs(1)),
            leave,
            notice: notice.then(|| "recorded".to_owned()),
            ..RoomSelection::default()
        }
    })
}

/// What the homeserver makes of a step.
fn carry_out(facts: &mut RoomFacts, step: &Step) {
    if facts.power == Power::NotShown && step.kind() == StepKind::Join {
        facts.power = with_helpers(0, Grant::NoLocalAdmin, Helpers::default());
    }
    let Power::Known(power) = &mut facts.power else { unreachable!("checked before") };
    let helpers = &mut power.helpers;
    match step {
        Step::MakeAdmin { .. } => {
            if let Grant::By { level, .. } = power.grant {
                power.bot = power.bot.max(level);
            }
            if facts.membership == Membership::Outside && !facts.is_public {
                facts.membership = Membership::Invited;
            }
        }
        Step::Raise { .. } => {
            power.bot = power.bot.max(helpers.raise.take().unwrap().level);
        }
        Step::Invite { .. } => facts.membership = Membership::Invited,
        Step::Recall { user, .. } => {
            helpers.absent.as_mut().unwrap().is_invited = true;
            facts.recalled = Some(Recalled { user: user.clone(), membership: Membership::Invited });
        }
        Step::Return { user } => {
            let absent = helpers.absent.take().unwrap();
            helpers.unban = Some(user.clone());
            if absent.level > power.bot {
                power.grant = Grant::By { user: user.clone(), level: absent.level };
            }
            facts.recalled = Some(Recalled { user: user.clone(), membership: Membership::Joined });
        }
        Step::Release { .. } => facts.recalled.as_mut().unwrap().membership = Membership::Outside,
        Step::Join { .. } => {
            facts.membership = Membership::Joined;
            facts.owes_notice = true;
        }
        Step::Unban { .. } | Step::RefuseInvitation(_) | Step::Leave(_) => {
            facts.membership = Membership::Outside;
        }
        Step::MarkFunctional(content) => {
            facts.direct.as_mut().unwrap().functional_members = Some(content.clone());
        }
        Step::PostNotice(_) => facts.owes_notice = false,
        Step::HandOver { .. } => facts.succession = Succession::Settled,
    }
}

/// What may be done for a bot that is banned.
fn is_for_a_banned_bot(step: &Step) -> bool {
    matches!(step.kind(), StepKind::Unban | StepKind::Recall | StepKind::Return | StepKind::Release)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the room: it takes a handful of steps, none of them on a room without power levels,
    /// for a banned bot only what ends the ban, and then there is nothing left to do and nobody in the
    /// room who was brought back.
    #[test]
    fn every_room_settles(mut facts in any_facts(), selection in any_selection()) {
        let mut steps = Vec::new();
        while let Plan::Step(step) = plan(&facts, &selection, &identity()) {
            prop_assert_ne!(&facts.power, &Power::Missing);
            prop_assert!(facts.power != Power::NotShown || step.kind() == StepKind::Join);
            prop_assert!(facts.membership != Membership::Banned || is_for_a_banned_bot(&step));
            carry_out(&mut facts, &step);
            steps.push(step.kind());
            prop_assert!(steps.len() <= 10, "{:?}", steps);
        }
        prop_assert!(!facts.recalled.as_ref().is_some_and(Recalled::is_there));
        let must_be_gone = match selection.leave {
            Leave::Everything { patient } => {
                !patient || facts.succession != Succession::Bot { goes_first: true }
            }
            Leave::Excluded => excluded(&facts, &selection, &identity()).is_some(),
            Leave::Nothing => false,
        };
        let is_gone = !matches!(facts.power, Power::Known(_)) || facts.membership != Membership::Joined;
        prop_assert!(!must_be_gone || is_gone);
        let settled = plan(&facts, &selection, &identity());
        prop_assert_eq!(settled, plan(&facts, &selection, &identity()));
    }

    /// A homeserver that answers yes and does nothing is not asked for ever.
    #[test]
    fn a_step_without_effect_is_given_up(mut facts in any_facts(), selection in any_selection()) {
        // Handing over is tried before leaving.
        for _ in 1..=2 * MOST_REPEATS {
            let Plan::Step(step) = plan(&facts, &selection, &identity()) else { return Ok(()) };
            let before = facts.repeated.filter(|(kind, _)| *kind == step.kind()).map_or(0, |(_, times)| times);
            facts.repeated = Some((step.kind(), before + 1));
        }
        prop_assert!(!matches!(plan(&facts, &selection, &identity()), Plan::Step(_)));
    }

    /// No invitation outside the selection is accepted.
    #[test]
    fn nothing_outside_the_selection_is_entered(facts in any_facts(), selection in any_selection()) {
        if exclusion::excluded(&facts, &selection, &identity()).is_some() {
            let planned = plan(&facts, &selection, &identity());
            let enters = matches!(
                planned,
                Plan::Step(
                    Step::Join { .. } | Step::MakeAdmin { .. } | Step::Invite { .. } | Step::Unban { .. }
                        | Step::Raise { .. } | Step::Recall { .. } | Step::Return { .. }
                )
            );
            prop_assert!(!enters);
        }
    }

    /// Room state is hostile: no content makes reading it fail.
    #[test]
    fn any_power_levels_can_be_read(text in "\\PC{0,20}", number in any::<i64>(), on in any::<bool>()) {
        for levels in [
            json!(text), json!(number), json!([number]), json!({ "users": text }),
            json!({ "users": { &text: number } }), json!({ "users": { BOT: on } }),
            json!({ "events": [on], "users_default": text, "state_default": {} }),
        ] {
            let _ = read_power(&state("11", levels, &["@alice:here.org"]), &identity(), &[]);
        }
    }
}
