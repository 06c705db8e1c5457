//! Attachments in a bucket of a real S3 server.

use std::path::{Path, PathBuf};

use ems_bots::{domain::worker::bucket_place, worker::media::BucketSettings};
use hyper_util::rt::TokioIo;
use s3s::{auth::SimpleAuth, service::S3ServiceBuilder};
use serde_json::json;
use tokio::net::TcpListener;

use crate::{
    faulty_store::{ATTENDED, Fault},
    media_stage::{CONTENT, outcomes, plain, sha256, stage, until_recorded, until_says, upload},
    worker_stage::{Stage, sync, until},
};

/// Serves the buckets below a folder at this address until the test ends.
fn serve(listener: TcpListener, folder: &Path) {
    let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(folder).unwrap());
    builder.set_auth(SimpleAuth::from_single("the-id", "the-secret"));
    let service = builder.build();
    tokio::spawn(async move {
        loop {
            let Ok((socket, _)) = listener.accept().await else { return };
            let service = service.clone();
            tokio::spawn(async move {
                let http = hyper::server::conn::http1::Builder::new();
                let _ended = http.serve_connection(TokioIo::new(socket), service).await;
            });
        }
    });
}

struct Server {
    folder: tempfile::TempDir,
    endpoint: String,
}

impl Server {
    async fn address() -> (Self, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        (Self { folder: tempfile::tempdir().unwrap(), endpoint }, listener)
    }

    fn make_bucket(&self) {
        std::fs::create_dir(self.folder.path().join("attachments")).unwrap();
    }

    fn settings(&self) -> BucketSettings {
        BucketSettings {
            endpoint: self.endpoint.clone(),
            name: "attachments".to_owned(),
            region: "us-east-1".to_owned(),
            prefix: Some("audit/example.org".to_owned()),
            access_key_id: "the-id".into(),
            secret_access_key: "the-secret".into(),
            ca: None,
        }
    }

    fn object(&self, bytes: &[u8]) -> PathBuf {
        self.folder.path().join("attachments/audit/example.org").join(sha256(bytes))
    }
}

/// The custom resource names the bucket that the worker is given.
async fn with_one_attachment(bucket: BucketSettings) -> Stage {
    let mut stage = stage(Some(CONTENT)).await;
    let place = bucket_place(&bucket.endpoint, &bucket.name, bucket.prefix.as_deref());
    stage.instructions.send_modify(|told| told.media.as_mut().unwrap().place = Some(place));
    stage.bucket = Some(bucket);
    upload(&stage, "1", b"one");
    stage.scene.fake.world().syncs.insert(String::new(), sync("s1", &[plain("$1", "1")], None));
    stage
}

async fn rows(stage: &Stage) -> Vec<(i64, Option<Vec<u8>>, Option<String>)> {
    let mut superuser = stage.database.superuser().await;
    let rows = sqlx::query_as("SELECT size, content, bucket FROM media");
    rows.fetch_all(&mut superuser).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bytes_are_in_the_bucket_and_the_database_says_in_which() {
    let (server, listener) = Server::address().await;
    server.make_bucket();
    serve(listener, server.folder.path());
    let stage = with_one_attachment(server.settings()).await;
    // The bytes are there before anything says so: a worker that is killed in between repeats itself.
    stage.start(Some((ATTENDED, Fault::KilledBefore))).killed().await;
    assert_eq!(std::fs::read(server.object(b"one")).unwrap(), b"one");
    let again = stage.start(None);
    let found = until_recorded(&stage, 1).await;
    again.stop().await.unwrap();
    assert_eq!(found, [json!(["$1", "attachment.kept", null, sha256(b"one")])]);
    let place = format!("{}/attachments/audit/example.org", server.endpoint);
    assert_eq!(rows(&stage).await, [(3, None, Some(place))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_down_is_told_and_tried_again() {
    let (server, listener) = Server::address().await;
    server.make_bucket();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let stage = with_one_attachment(server.settings()).await;
    let running = stage.start(None);
    until_says(&running, "attachments: lagging: a few wait: the bucket is not reachable or fails").await;
    assert_eq!(outcomes(&stage).await, [] as [serde_json::Value; 0]);
    assert_eq!(rows(&stage).await, []);
    serve(TcpListener::bind(address).await.unwrap(), server.folder.path());
    let found = until_recorded(&stage, 1).await;
    assert_eq!(found, [json!(["$1", "attachment.kept", null, sha256(b"one")])]);
    until_says(&running, "attachments: on").await;
    running.stop().await.unwrap();
    assert_eq!(std::fs::read(server.object(b"one")).unwrap(), b"one");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_refuses_the_keys_gets_nothing() {
    let (server, listener) = Server::address().await;
    server.make_bucket();
    serve(listener, server.folder.path());
    let wrong = BucketSettings { secret_access_key: "wrong".into(), ..server.settings() };
    let stage = with_one_attachment(wrong).await;
    let running = stage.start(None);
    until_says(&running, "the bucket refuses its keys").await;
    // However long that lasts, and however often it is tried: it says nothing of the attachment.
    let old = "UPDATE attachment SET queued_at = now() - interval '99 days', tries = 500 RETURNING tries";
    let tries: Vec<i32> =
        sqlx::query_scalar(old).fetch_all(&mut stage.database.superuser().await).await.unwrap();
    assert_eq!(tries, [500]);
    let asked = || stage.scene.fake.count("/media/download/");
    let before = asked();
    until("it is tried again", || (asked() > before + 1).then_some(()).ok_or(asked())).await;
    running.stop().await.unwrap();
    assert_eq!(outcomes(&stage).await, [] as [serde_json::Value; 0]);
    assert!(!server.object(b"one").exists());
    assert_eq!(rows(&stage).await, []);
}
