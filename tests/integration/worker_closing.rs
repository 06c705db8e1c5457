//! The end of a worker at every await of the end of its custom resource: by an eviction or a deletion in the
//! foreground, which lets it finish, and by `kill -9`, which does not.
//!
//! The worker ends when it has been polled for the N-th time since it knows that the trail is not closed yet, for
//! growing N until it has closed it first. Each run takes some of them, as `failpoints` says.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use ems_bots::store::pg::{Role, inbox::PgInbox};
use tokio_util::sync::CancellationToken;

use crate::{
    failpoints::{count, in_own_runtime, places, under_test},
    postgres::TestDatabase,
    store_append,
    worker_stage::{Process, Stage, until},
};

/// So many lives in a row that nothing ended are the end.
const UNDISTURBED: u32 = 3;

/// No closing needs more polls than this.
const MOST: usize = 3000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// It is asked to end.
    Asked,
    /// It is no more.
    Killed,
}

/// One process, which closes the trail or ends after so many polls. The result is whether the trail is closed.
async fn live(stage: &Arc<Stage>, polls: usize, end: End) -> bool {
    let stage = stage.clone();
    in_own_runtime(async move || {
        let Process { worker, seen, .. } = stage.prepare(None);
        let (soft, reached) = (CancellationToken::new(), CancellationToken::new());
        let board = worker.board.clone();
        let running_as = Arc::new(OnceLock::new());
        let own = running_as.clone();
        let counts = move |task| task == own.get().copied() && *seen.looked.lock().unwrap() > 0;
        let _guard = count(counts, polls, &reached);
        let ending = soft.clone();
        let mut running = tokio::spawn(under_test(async move { worker.run(ending).await }));
        running_as.set(running.id()).unwrap();
        let closed = until("the trail is closed", || {
            let report = board.get();
            report.closed.then_some(()).ok_or((report.database, report.recording))
        });
        let is_closed = tokio::select! {
            biased;
            () = reached.cancelled() => false,
            result = &mut running => panic!("it ended: {result:?}"),
            () = closed => true,
        };
        if is_closed || end == End::Asked {
            soft.cancel();
            running.await.unwrap().unwrap();
        }
        is_closed
    })
    .await
}

/// Each life of the custom resource has one request in the inbox, which is to be recorded before its end is.
async fn end_everywhere(end: End) {
    let (first, step) = places(80);
    let mut stage = Stage::set().await;
    stage.quiet = Duration::from_millis(20);
    stage.instructions.send_modify(|told| told.deleting = true);
    let inbox = PgInbox::new(&stage.database.endpoint(Role::Inbox), "console-1", TestDatabase::inbox_key());
    let stage = Arc::new(stage);
    let (mut life, mut ends, mut undisturbed, mut recorded) = (0_u32, 0_usize, 0, 0);
    while undisturbed < UNDISTURBED {
        let polls = first + usize::try_from(life).unwrap() * step;
        assert!(polls < MOST, "it never closes its trail");
        let request = format!("request {life}");
        stage.instructions.send_modify(|told| told.uid = format!("life-{life}"));
        inbox.put(i64::from(life) + 1, &store_append::message("x", &request)).await.unwrap();
        if live(&stage, polls, end).await {
            undisturbed += 1;
        } else {
            (ends, undisturbed) = (ends + 1, 0);
            if end == End::Asked {
                // Maybe nobody starts it again.
                let texts: Vec<_> = stage.trail().await.into_iter().filter_map(|draft| draft.text).collect();
                assert!(texts.contains(&request), "{request}, after {polls} polls: {texts:?}");
            }
            assert!(live(&stage, usize::MAX, end).await);
        }
        let trail = stage.trail().await;
        let news = &trail[recorded..];
        let said = news.iter().filter(|draft| draft.text.as_ref() == Some(&request)).count();
        let deleted = news.iter().filter(|draft| draft.action == "bot.deleted").count();
        assert_eq!((said, deleted), (1, 1), "after {polls} polls: {news:#?}");
        assert_eq!(news.last().unwrap().action, "bot.deleted", "after {polls} polls: {news:#?}");
        recorded = trail.len();
        life += 1;
    }
    println!("ended {ends} times in {life} lives");
    // How many polls there are is chance: answers that come together are one.
    assert!(ends > 0, "it closed its trail before the first place to end at");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_asked_to_end_while_it_closes_leaves_nothing_behind() {
    end_everywhere(End::Asked).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_killed_while_it_closes_loses_nothing() {
    end_everywhere(End::Killed).await;
}
