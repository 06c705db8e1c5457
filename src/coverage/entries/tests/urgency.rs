//! Which rooms are visited before others.

use super::*;

#[test]
fn rooms_that_somebody_waits_for_have_visits_of_their_own() {
    let (mut entries, now) = (Entries::new(Duration::from_mins(10)), Instant::now());
    let listings = (0..5).map(|number| listing(number, 1)).collect();
    refresh(&mut entries, listings, &HashSet::new(), &HashSet::new(), now);
    entries.hint(&room(2), true, now);
    entries.hint(&room(3), false, now);
    entries.hint(&room(4), true, now);
    let mut visits = |urgent, ordinary| {
        let taken = entries.take_due(now, Free { urgent, ordinary });
        taken.into_iter().map(|due| due.room).collect::<Vec<_>>()
    };
    assert_eq!(visits(1, 0), [room(2)]);
    assert_eq!(visits(3, 0), [room(4)]);
    assert_eq!(visits(0, 2), [room(0), room(1)], "and others beside them");
}

#[test]
fn a_new_room_does_not_wait_for_those_that_were_there() {
    let (mut entries, now) = (Entries::new(Duration::from_mins(10)), Instant::now());
    for rooms in [5, 6] {
        let listings = (0..rooms).map(|number| listing(number, 1)).collect();
        refresh(&mut entries, listings, &HashSet::new(), &HashSet::new(), now);
    }
    let due = entries.take_due(now, free(1));
    assert_eq!(due[0], Due { room: room(5), is_urgent: true });
}

/// In which tenths of a second a room is looked at that stays unfinished for ten seconds, beside so many others that there is
/// always one that waits.
fn looks_at_unfinished(unfinished: Obstacle, is_new: bool) -> Vec<u64> {
    let (mut entries, start) = (Entries::new(Duration::from_mins(10)), Instant::now());
    let mut listings: Vec<_> = (0..100).map(|number| listing(number, 1)).collect();
    let wanted = listing(200, 1);
    if !is_new {
        listings.push(wanted.clone());
    }
    refresh(&mut entries, listings, &HashSet::new(), &HashSet::new(), start);
    entries.discover(vec![wanted], start);
    let mut looks = Vec::new();
    for tenth in 0..100 {
        let now = start + Duration::from_millis(tenth * 100);
        for due in entries.take_due(now, free(1)) {
            if due.room == room(200) {
                looks.push(tenth);
                entries.visited(&room(200), visit(State::Blocked(unfinished), 0, false), now);
                let is_blocked = !entries.totals().blocked.is_empty();
                assert_eq!(is_blocked, !is_new || looks.len() > 12, "a new one is not made yet");
            }
        }
    }
    looks
}

#[test]
fn a_room_that_is_being_made_is_looked_at_often_and_before_others() {
    for unfinished in [Obstacle::PowerLevelsMissing, Obstacle::NobodyLocal] {
        let looks = looks_at_unfinished(unfinished, true);
        assert_eq!(looks[..13], [0, 3, 6, 9, 12, 15, 18, 21, 24, 27, 30, 33, 36], "{unfinished:?}");
    }
    assert_eq!(looks_at_unfinished(Obstacle::NobodyLocal, true).len(), 13, "then it waits for news");
    assert_eq!(looks_at_unfinished(Obstacle::NobodyLocal, false).len(), 1, "it was left by everybody");
}

#[test]
fn a_room_that_was_listed_while_nobody_was_in_it_is_new_when_somebody_is() {
    let (mut entries, mut now) = (Entries::new(Duration::from_mins(10)), Instant::now());
    let empty = RoomListing { joined_members: 0, joined_local_members: 0, ..listing(1, 5) };
    refresh(&mut entries, vec![empty], &HashSet::new(), &HashSet::new(), now);
    while let Some(at) = entries.next_due(free(1)).filter(|at| *at < now + Duration::from_mins(1)) {
        now = at;
        entries.take_due(now, free(1));
        entries.visited(&room(1), visit(State::Blocked(Obstacle::NobodyLocal), 0, false), now);
    }
    assert_eq!(entries.totals().blocked.len(), 1);
    refresh(&mut entries, vec![listing(1, 5)], &HashSet::new(), &HashSet::new(), now);
    let urgent = Free { urgent: 1, ordinary: 0 };
    assert_eq!(entries.take_due(now, urgent).len(), 1, "before others");
    entries.visited(&room(1), visit(State::Blocked(Obstacle::PowerLevelsMissing), 0, false), now);
    assert!(entries.next_due(urgent).is_some_and(|at| at < now + Duration::from_secs(1)), "it is being made");
}

#[test]
fn that_the_bot_is_in_a_room_is_news_only_where_nobody_knew() {
    let (mut entries, mut now) = (Entries::new(Duration::from_mins(10)), Instant::now());
    refresh(&mut entries, vec![listing(1, 5)], &HashSet::new(), &HashSet::new(), now);
    // Told while the room is being visited, or after that.
    let mut is_news = |look: Visit, meanwhile: bool| {
        now += Duration::from_mins(20);
        assert_eq!(entries.take_due(now, free(1)).len(), 1);
        if meanwhile {
            assert!(entries.joined(&room(1), now), "it is listed");
        }
        entries.visited(&room(1), look, now);
        if !meanwhile {
            assert!(entries.joined(&room(1), now), "it is listed");
        }
        entries.next_due(Free { urgent: 1, ordinary: 0 }).is_some()
    };
    let came_in = || in_it(visit(State::Covered, 1, false));
    let left_out = || {
        let outside = Standing { is_joined: false, is_excluded: true };
        Visit { standing: Some(outside), ..visit(State::Excluded(Exclusion::Denied), 0, false) }
    };
    assert!(!is_news(came_in(), true), "it came in by itself");
    assert!(!is_news(came_in(), false));
    assert!(is_news(left_out(), true), "a person did");
    assert!(is_news(left_out(), false));
}

#[test]
fn whoever_waits_for_a_room_waits_also_after_a_few_failures() {
    let (mut entries, mut now) = (Entries::new(Duration::from_mins(10)), Instant::now());
    refresh(&mut entries, vec![listing(1, 5)], &HashSet::new(), &HashSet::new(), now);
    let urgent = Free { urgent: 1, ordinary: 0 };
    let failed = || visit(State::Pending, 0, true);
    entries.take_due(now, free(1));
    entries.visited(&room(1), failed(), now);
    assert_eq!(entries.next_due(urgent), None, "nobody waits");
    now += Duration::from_mins(1);
    entries.take_due(now, free(1));
    entries.visited(&room(1), in_it(visit(State::Covered, 0, false)), now);
    entries.hint(&room(1), true, now);
    let mut attempts = 0;
    while entries.next_due(urgent).is_some() {
        now += Duration::from_mins(1);
        assert_eq!(entries.take_due(now, urgent).len(), 1);
        if attempts % 2 == 0 {
            entries.visited(&room(1), failed(), now);
        } else {
            entries.abandoned(&room(1), now);
        }
        attempts += 1;
        assert!(attempts < 10, "others wait, too");
    }
    assert_eq!(attempts, 6);
}

#[test]
fn looks_at_a_room_that_is_being_made_are_no_failures() {
    let (mut entries, mut now) = (Entries::new(Duration::from_mins(10)), Instant::now());
    refresh(&mut entries, Vec::new(), &HashSet::new(), &HashSet::new(), now);
    entries.discover(vec![listing(1, 5)], now);
    for _ in 0..10 {
        entries.take_due(now, free(1));
        entries.visited(&room(1), visit(State::Blocked(Obstacle::NobodyLocal), 0, false), now);
        now = entries.next_due(free(1)).unwrap();
    }
    entries.take_due(now, free(1));
    entries.visited(&room(1), visit(State::Pending, 0, true), now);
    assert!(entries.next_due(free(1)).unwrap() < now + Duration::from_secs(1));
}

#[test]
fn a_room_that_refuses_a_step_is_blocked_only_when_it_does_so_again() {
    for is_new in [true, false] {
        let (mut entries, start) = (Entries::new(Duration::from_mins(10)), Instant::now());
        let there = if is_new { Vec::new() } else { vec![listing(1, 5)] };
        refresh(&mut entries, there, &HashSet::new(), &HashSet::new(), start);
        entries.discover(vec![listing(1, 5)], start);
        let (mut now, mut refusals) = (start, 0);
        loop {
            assert_eq!(entries.take_due(now, free(1)).len(), 1);
            entries.visited(&room(1), visit(State::Blocked(Obstacle::Refused), 1, true), now);
            if !entries.totals().blocked.is_empty() {
                break;
            }
            refusals += 1;
            now = entries.next_due(free(1)).unwrap();
        }
        assert_eq!(refusals, 3);
        assert!(now < start + Duration::from_secs(2), "that takes a moment only");
    }
}

#[test]
fn what_was_done_in_a_room_is_looked_at_once_more_whatever_happens_there_meanwhile() {
    let (mut entries, now) = (Entries::new(Duration::from_mins(10)), Instant::now());
    refresh(&mut entries, vec![listing(1, 5)], &HashSet::new(), &HashSet::new(), now);
    entries.take_due(now, free(1));
    entries.visited(&room(1), in_it(visit(State::Covered, 1, false)), now);
    let soon = now + Duration::from_secs(1);
    entries.hint(&room(1), true, soon);
    assert_eq!(entries.take_due(soon, free(1)).len(), 1);
    entries.visited(&room(1), in_it(visit(State::Covered, 0, false)), soon);
    assert_eq!(entries.next_due(free(1)), Some(now + Duration::from_secs(5)));
}
