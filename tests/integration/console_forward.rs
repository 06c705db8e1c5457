//! What waits in the console's own database reaches the trails, whatever is away meanwhile.

use std::{sync::Arc, time::Duration};

use ems_bots::{
    console::{
        config::{Notes, Process},
        deliver::messages,
        estate::{Estate, KnownBot},
        intake::{Entry, Target, counter},
    },
    domain::{Clock as _, SystemClock},
    store::platform::{Patience, PlatformStore, Which},
    trail::content,
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    console_stage::{World, bot, entries, estate, estate_of, known, place, to_auditbot},
    store_append::message,
    worker_stage::until,
};

#[tokio::test]
async fn what_a_trail_takes_is_in_it_before_the_answer() {
    let world = World::new().await;
    world.tenants.open("auditbot", &world.tenant);
    world.delivery().deliver(to_auditbot(&["one", "two"])).await.unwrap();
    let texts: Vec<_> = world.drain().await.into_iter().map(|draft| draft.text.unwrap()).collect();
    assert_eq!(texts, ["one", "two"]);
    assert_eq!(world.waiting().await, 0);
}

#[tokio::test]
async fn what_no_trail_takes_waits_and_arrives_once_when_it_is_there() {
    let world = World::new().await;
    let delivery = world.delivery();
    delivery.deliver(to_auditbot(&["early"])).await.unwrap();
    // Sent again, by the API server or through another replica.
    world.delivery().deliver(to_auditbot(&["early"])).await.unwrap();
    assert_eq!(world.waiting().await, 1);
    assert_eq!(world.carry().await, ["auditbot"]);
    assert_eq!(world.waiting().await, 1, "the first create of a bot: its trail does not exist yet");
    world.tenants.open("auditbot", &world.tenant);
    world.hurry().await;
    world.carry().await;
    assert_eq!(world.waiting().await, 0);
    let arrived = world.drain().await;
    assert_eq!(arrived.len(), 1);
    assert_eq!(
        arrived[0].occurred,
        message("early", "early").occurred,
        "when it happened, not when it arrived"
    );
    // A replica that died after it had carried it on, and a late copy of the report.
    world.platform.keep(&to_auditbot(&["early"])).await.unwrap();
    world.carry().await;
    world.delivery().deliver(to_auditbot(&["early"])).await.unwrap();
    assert_eq!(world.drain().await, []);
}

#[tokio::test]
async fn an_inbox_that_was_not_there_is_asked_again_at_once() {
    let world = World::new().await;
    let delivery = world.delivery();
    delivery.deliver(to_auditbot(&["before the bot is made"])).await.unwrap();
    world.tenants.open("auditbot", &world.tenant);
    delivery.deliver(to_auditbot(&["after that"])).await.unwrap();
    assert_eq!((world.waiting().await, world.drain().await.len()), (1, 1));
}

#[tokio::test]
async fn two_replicas_do_not_carry_the_same_message_and_one_that_died_leaves_it() {
    let world = World::new().await;
    world.platform.keep(&to_auditbot(&["one", "two", "three"])).await.unwrap();
    let lease = Duration::from_secs(60);
    let first = world.platform.take(2, Duration::ZERO, Which::All).await.unwrap().unwrap();
    assert_eq!((first.bot, first.messages.len()), (bot("auditbot"), 2));
    let second = world.platform.take(10, lease, Which::All).await.unwrap().unwrap();
    assert_eq!(second.messages.len(), 3, "the lease of the one before is over");
    assert_eq!(world.platform.take(10, lease, Which::All).await.unwrap(), None);
    world.hurry().await;
    assert_eq!(world.platform.take(10, lease, Which::All).await.unwrap(), None, "it is in somebody's hands");
    world.platform.release(second.trail, Duration::ZERO, 0).await.unwrap();
    assert!(world.platform.take(10, lease, Which::All).await.unwrap().is_some());
}

#[tokio::test]
async fn one_trail_that_is_away_does_not_hold_up_another() {
    let world = World::new().await;
    let away = |id: &str| Entry { target: Target::Bot(bot("second")), draft: message(id, id) };
    // More than a page of them, all older.
    let older: Vec<Entry> = (0..150).map(|number| away(&format!("away {number}"))).collect();
    world.platform.keep(&messages(&older, &estate(), true)).await.unwrap();
    world.platform.keep(&to_auditbot(&["one", "two"])).await.unwrap();
    world.tenants.open("auditbot", &world.tenant);
    assert_eq!(world.carry().await, ["second", "auditbot"], "its trail is tried once, not each message");
    assert_eq!(world.waiting().await, 150);
    assert_eq!(world.drain().await.len(), 2);
    world.tire().await;
    world.platform.keep(&messages(&[away("later")], &estate(), true)).await.unwrap();
    world.platform.keep(&to_auditbot(&["three"])).await.unwrap();
    assert_eq!(world.carry().await, ["auditbot"], "what comes later does not make it due");
}

#[tokio::test]
async fn a_trail_that_never_answers_takes_one_carrier_and_no_other() {
    let world = World::new().await;
    world.tenants.silent.lock().unwrap().insert(bot("second"));
    let away = Entry { target: Target::Bot(bot("second")), draft: message("away", "away") };
    world.platform.keep(&messages(&[away], &estate(), true)).await.unwrap();
    world.platform.keep(&to_auditbot(&["one"])).await.unwrap();
    world.tenants.open("auditbot", &world.tenant);
    let soft = CancellationToken::new();
    let running = tokio::spawn(world.forwarder().run(soft.clone()));
    let started = tokio::time::Instant::now();
    while world.waiting().await > 1 {
        assert!(started.elapsed() < Duration::from_secs(3), "it waits for the other one");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    soft.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn many_that_are_being_deleted_and_never_answer_do_not_hold_up_another() {
    let world = World::new().await;
    let names: Vec<String> = (0..60).map(|number| format!("a-silent-{number}")).collect();
    world.tenants.silent.lock().unwrap().extend(names.iter().map(|name| bot(name)));
    let to = |name: &str, id: &str| Entry { target: Target::Bot(bot(name)), draft: message(id, id) };
    let away: Vec<Entry> = names.iter().map(|name| to(name, name)).collect();
    world.platform.keep(&messages(&away, &estate(), true)).await.unwrap();
    let leaving = names.iter().map(|name| KnownBot { is_leaving: true, ..known(name) });
    world.estate.send_replace(Arc::new(Estate::new(place(), leaving.chain([known("auditbot")]))));
    // All of them were tried in vain before.
    for name in &names {
        let page = world.platform.take(1, Duration::ZERO, Which::All).await.unwrap();
        let trail = page.unwrap_or_else(|| panic!("{name} is due")).trail;
        world.platform.release(trail, Duration::from_secs(60), 3).await.unwrap();
    }
    let soft = CancellationToken::new();
    let running = tokio::spawn(world.forwarder().run(soft.clone()));
    while world.tenants.asked.lock().unwrap().len() < 18 {
        tokio::task::yield_now().await;
    }
    world.tenants.open("auditbot", &world.tenant);
    world.platform.keep(&to_auditbot(&["one"])).await.unwrap();
    let started = tokio::time::Instant::now();
    while world.waiting().await > 60 {
        assert!(started.elapsed() < Duration::from_secs(4), "it waits for one of the others");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    soft.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn what_waits_for_a_bot_that_is_being_deleted_is_tried_at_once_and_first() {
    let world = World::new().await;
    world.platform.keep(&to_auditbot(&["removal"])).await.unwrap();
    world.tire().await;
    let second = Entry { target: Target::Bot(bot("second")), draft: message("x", "x") };
    world.platform.keep(&messages(&[second], &estate(), true)).await.unwrap();
    world.forwarder().hurry().await.unwrap();
    assert_eq!(world.carry().await, ["second"], "the other one was tried a moment ago");
    let leaving = KnownBot { is_leaving: true, ..known("auditbot") };
    world.estate.send_replace(Arc::new(Estate::new(place(), [leaving, known("second")])));
    for _ in 0..3 {
        world.forwarder().hurry().await.unwrap();
        assert_eq!(world.carry().await, ["auditbot"]);
    }
    world.tenants.open("auditbot", &world.tenant);
    world.forwarder().hurry().await.unwrap();
    world.carry().await;
    assert_eq!(world.drain().await.len(), 1);
}

#[tokio::test]
async fn what_waits_for_a_bot_that_there_is_not_is_given_up_after_a_month() {
    let world = World::new().await;
    let patience = Patience { proven: Duration::from_hours(30 * 24), unproven: Duration::from_hours(24) };
    let to = |name: &str| Entry { target: Target::Bot(bot(name)), draft: message("one", "one") };
    let unproven = Entry { target: Target::Bot(bot("invented")), draft: message("two", "two") };
    world.platform.keep(&messages(&[to("auditbot"), to("invented")], &estate(), true)).await.unwrap();
    world.platform.keep(&messages(&[unproven], &estate(), false)).await.unwrap();
    assert_eq!(world.platform.totals(true).await.unwrap().left_over, 0, "there may be such bots");
    world.age(2).await;
    let totals = world.platform.totals(true).await.unwrap();
    assert_eq!((totals.oldest, totals.left_over), (Duration::ZERO, 3), "nobody has to look after them");
    world.estate.send_replace(Arc::new(Estate::new(place(), [])));
    world.forwarder().sweep(patience).await.unwrap();
    assert_eq!(world.waiting().await, 3, "nobody knows yet which bots there are");
    world.forwarder().count().await.unwrap();
    assert_eq!(world.left_over(), Some(0), "nobody knows yet");
    assert!(world.platform.totals(false).await.unwrap().oldest > Duration::from_hours(24));
    world.estate.send_replace(Arc::new(estate()));
    world.forwarder().count().await.unwrap();
    assert_eq!(world.left_over(), Some(2), "no console was there to see the bot, which is there");
    world.age(2).await;
    world.estate.send_replace(Arc::new(estate()));
    world.forwarder().sweep(patience).await.unwrap();
    assert_eq!(world.waiting().await, 2, "that of somebody who proved nothing");
    assert_eq!(world.platform.totals(true).await.unwrap().left_over, 1, "the other bot is there");
    counted_as_left_over(&world, 1).await;
    world.hurry().await;
    world.age(31).await;
    world.forwarder().sweep(patience).await.unwrap();
    let left = world.platform.take(10, Duration::ZERO, Which::All).await.unwrap().unwrap();
    assert_eq!((world.waiting().await, left.bot), (1, bot("auditbot")), "a trail may be away for long");
    let oldest = world.platform.totals(true).await.unwrap().oldest;
    assert!(oldest > Duration::from_hours(30 * 24), "{oldest:?}");
    assert_eq!(world.count("ems_bots_console_records_total", "expired"), "2");
    let mut superuser = world.own.superuser().await;
    let trails: i64 =
        sqlx::query_scalar("SELECT count(*) FROM trail").fetch_one(&mut superuser).await.unwrap();
    assert_eq!(trails, 1, "invented names are forgotten");
}

/// Waits until a console at work says so in its metrics.
async fn counted_as_left_over(world: &World, records: u32) {
    let soft = CancellationToken::new();
    let running = tokio::spawn(world.forwarder().run(soft.clone()));
    until("they are counted", || {
        let now = world.left_over();
        if now == Some(records) { Ok(()) } else { Err(now) }
    })
    .await;
    soft.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn what_was_noted_of_bots_that_are_gone_is_forgotten_after_a_day() {
    let world = World::new().await;
    world.estate.send_replace(Arc::new(estate_of(&["auditbot"])));
    let store: Arc<dyn PlatformStore> = world.platform.clone();
    let now = SystemClock.now();
    let mut notes = Notes::of(Process::Operator);
    notes.note(&store, &estate(), &json!({"version": "1"}), now).await.unwrap();
    let patience = Patience { proven: Duration::from_hours(1_000), unproven: Duration::from_hours(1_000) };
    for (sql, left) in [("SELECT 1", 2), ("UPDATE known SET noted_at = noted_at - interval '2 days'", 1)] {
        let mut superuser = world.own.superuser().await;
        sqlx::query(sql).execute(&mut superuser).await.unwrap();
        world.forwarder().sweep(patience).await.unwrap();
        let known: i64 =
            sqlx::query_scalar("SELECT count(*) FROM known").fetch_one(&mut superuser).await.unwrap();
        assert_eq!(known, left, "{sql}");
    }
}

#[tokio::test]
async fn inboxes_that_do_not_answer_hold_up_a_report_once_and_not_each() {
    let world = World::new().await;
    let names: Vec<String> = (0..10).map(|number| format!("a-silent-{number}")).collect();
    world.tenants.silent.lock().unwrap().extend(names.iter().map(|name| bot(name)));
    world.tenants.open("auditbot", &world.tenant);
    let mut entries = entries(&["one"]);
    entries.extend(
        names.iter().map(|name| Entry { target: Target::Bot(bot(name)), draft: message(name, name) }),
    );
    let started = tokio::time::Instant::now();
    world.delivery().deliver(messages(&entries, &estate(), true)).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    assert_eq!((world.waiting().await, world.drain().await.len()), (10, 1));
}

#[tokio::test]
async fn a_record_for_very_many_is_kept_in_parts_and_once() {
    let world = World::new().await;
    let names: Vec<String> = (0..450).map(|number| format!("bot-{number}")).collect();
    let many = estate_of(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let entry = Entry { target: Target::Everybody, draft: message("all", "all") };
    for _ in 0..2 {
        world.delivery().deliver(messages(std::slice::from_ref(&entry), &many, true)).await.unwrap();
        assert_eq!(world.waiting().await, 450);
    }
}

#[tokio::test]
async fn what_is_about_everybody_reaches_every_trail() {
    let world = World::new().await;
    world.tenants.open("auditbot", &world.tenant);
    let entry = Entry { target: Target::Everybody, draft: message("all", "all") };
    world.delivery().deliver(messages(&[entry], &estate(), true)).await.unwrap();
    assert_eq!(world.drain().await.len(), 1);
    let left = world.platform.take(10, Duration::ZERO, Which::All).await.unwrap().unwrap();
    assert_eq!((left.bot, left.messages.len()), (bot("second"), 1));
    assert_eq!(left.messages[0].counter, counter("all"));
    assert_eq!(content::decode(&left.messages[0].body).unwrap(), message("all", "all"));
}

/// How much waits after a replica has noted its configuration.
async fn noted(world: &World, notes: &mut Notes, estate: &Estate, value: &str) -> u64 {
    let store: Arc<dyn PlatformStore> = world.platform.clone();
    let value = json!({"version": value});
    notes.note(&store, estate, &value, SystemClock.now()).await.unwrap();
    world.waiting().await
}

#[tokio::test]
async fn a_configuration_is_recorded_once_for_all_replicas() {
    let world = World::new().await;
    let note =
        async |notes: &mut Notes, estate: &Estate, value: &str| noted(&world, notes, estate, value).await;
    let (mut one, mut other) = (Notes::of(Process::Operator), Notes::of(Process::Operator));
    assert_eq!(note(&mut one, &estate(), "1").await, 2);
    assert_eq!(note(&mut one, &estate(), "1").await, 2);
    assert_eq!(note(&mut other, &estate(), "1").await, 2);
    let more = estate_of(&["auditbot", "second", "third"]);
    assert_eq!(note(&mut other, &more, "1").await, 3, "a new trail says with what it began");
    assert_eq!(note(&mut one, &more, "2").await, 6);
    assert_eq!(note(&mut other, &more, "2").await, 6);
    let again = KnownBot { uid: "another life".into(), ..known("third") };
    let again = Estate::new(place(), [known("auditbot"), known("second"), again]).complete();
    assert_eq!(note(&mut one, &again, "2").await, 7, "the trail of a bot that was made anew begins again");
    let stale = world.platform.note("configuration:operator", Some("{}"), "{}", &to_auditbot(&["x"])).await;
    assert!(!stale.unwrap(), "another replica was faster");
    assert_eq!(world.waiting().await, 7);
}

#[tokio::test]
async fn while_an_upgrade_goes_on_the_old_console_does_not_undo_what_the_new_one_says() {
    let world = World::new().await;
    let note =
        async |notes: &mut Notes, estate: &Estate, value: &str| noted(&world, notes, estate, value).await;
    let (mut old, mut new) = (Notes::of(Process::Console), Notes::of(Process::Console));
    assert_eq!(note(&mut old, &estate(), "1").await, 2);
    assert_eq!(note(&mut new, &estate(), "2").await, 4);
    assert_eq!(note(&mut old, &estate(), "1").await, 4);
    let more = estate_of(&["auditbot", "second", "third"]);
    assert_eq!(note(&mut new, &more, "2").await, 5);
    assert_eq!(note(&mut old, &more, "1").await, 5);
    assert_eq!(note(&mut Notes::of(Process::Console), &more, "2").await, 5, "another new one");
}
