//! A certificate in files that somebody else renews, as cert-manager does with those of a Secret.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::symlink,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, routing::get};
use ems_bots::{
    cli::console::certificate::follow,
    console::{
        certificate::{Kept, make},
        listen::serve_on,
        tls::{Acceptor, Certificate},
    },
    domain::{Clock as _, SystemClock},
};
use tempfile::TempDir;
use tokio::{net::TcpListener, time::Instant};
use tokio_util::sync::CancellationToken;

const NAME: &str = "console.test";
const FILES: [&str; 2] = ["tls.crt", "tls.key"];

/// The volume of a Secret as the kubelet keeps it: the files are links, and change together.
struct Volume {
    folder: TempDir,
    versions: usize,
}

impl Volume {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in FILES {
            symlink(format!("..data/{name}"), folder.path().join(name)).unwrap();
        }
        Self { folder, versions: 0 }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    fn write(&mut self, kept: &Kept) {
        self.versions += 1;
        let version = format!("..version{}", self.versions);
        let place = self.path().join(&version);
        fs::create_dir(&place).unwrap();
        for (name, text) in FILES.iter().zip([&kept.certificate, &kept.key]) {
            fs::write(place.join(name), text).unwrap();
        }
        symlink(&version, self.path().join("..data_tmp")).unwrap();
        fs::rename(self.path().join("..data_tmp"), self.path().join("..data")).unwrap();
    }
}

/// Each with an authority of its own: who trusts the one does not trust the other.
fn kept() -> Kept {
    make(&[NAME.to_owned()], SystemClock.now()).unwrap()
}

/// Whether somebody who trusts this authority only is served, by a connection of his own.
async fn is_served(address: SocketAddr, kept: &Kept) -> bool {
    let authority = reqwest::Certificate::from_pem(kept.authorities.as_bytes()).unwrap();
    let http = reqwest::Client::builder().no_proxy().tls_certs_only([authority]).resolve(NAME, address);
    let url = format!("https://{NAME}:{}/", address.port());
    let answer = http.build().unwrap().get(url).send().await;
    answer.is_ok_and(|answer| answer.status().is_success())
}

async fn wait_served(what: &str, address: SocketAddr, kept: &Kept) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_served(address, kept).await {
        assert!(Instant::now() < deadline, "{what} is not shown");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_certificate_that_somebody_else_renews_is_shown_without_a_restart() {
    let _installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let (first, second) = (kept(), kept());
    let (mut volume, certificate) = (Volume::new(), Certificate::default());
    let (ready, soft) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
    let shown = ready.clone();
    let says = move || {
        shown.fetch_add(1, Ordering::Relaxed);
    };
    let every = Duration::from_millis(5);
    let following = tokio::spawn(follow(volume.path(), every, certificate.clone(), says, soft.clone()));
    let acceptor = Acceptor::new(certificate.clone(), None).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/", get(async || "served"));
    let serving = tokio::spawn(serve_on(listener, acceptor, router, soft.clone(), Duration::ZERO));
    assert!(!is_served(address, &first).await, "there are no files yet");
    assert_eq!(ready.load(Ordering::Relaxed), 0);

    volume.write(&first);
    wait_served("the first one", address, &first).await;
    assert_eq!(ready.load(Ordering::Relaxed), 1);
    assert!(!is_served(address, &second).await);
    // A key that does not belong to it, however often that is looked at: the one before is better than none.
    let mixed = Kept { key: first.key.clone(), ..second.clone() };
    certificate.set(mixed.certificate.as_bytes(), mixed.key.as_bytes()).unwrap_err();
    volume.write(&mixed);
    for _ in 0..50 {
        assert!(is_served(address, &first).await);
    }

    volume.write(&second);
    wait_served("the second one", address, &second).await;
    assert!(!is_served(address, &first).await, "the one before is not shown any more");
    assert_eq!(ready.load(Ordering::Relaxed), 2);
    soft.cancel();
    following.await.unwrap().unwrap();
    serving.await.unwrap();
}
