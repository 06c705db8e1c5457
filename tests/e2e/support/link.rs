//! The way to a database, as a network has it: it can fall silent. What is on it then hears nothing more, and who comes
//! gets no answer, as with packets that are dropped.

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};

use super::Database;

/// Where pods and this process reach what this process listens on: the cluster's bridge.
const BRIDGE: &str = "10.244.0.1";

/// See the module. Stops listening with the test's runtime.
#[derive(Debug)]
pub struct Link {
    /// Data of the database's Secret by this way.
    pub secret: serde_json::Value,
    carries: watch::Sender<bool>,
}

impl Link {
    pub async fn to(database: &Database) -> Self {
        let listener = TcpListener::bind((BRIDGE, 0)).await.expect("the cluster's bridge is there");
        let text = |key: &str| database.secret[key].as_str().unwrap().to_owned();
        let upstream = format!("{}:{}", text("host"), text("port"));
        let mut secret = database.secret.clone();
        secret["host"] = BRIDGE.into();
        secret["port"] = listener.local_addr().unwrap().port().to_string().into();
        let carries = watch::Sender::new(true);
        tokio::spawn(accept(listener, upstream, carries.subscribe()));
        Self { secret, carries }
    }

    pub fn cut(&self) {
        self.carries.send_replace(false);
    }

    pub fn mend(&self) {
        self.carries.send_replace(true);
    }
}

async fn accept(listener: TcpListener, upstream: String, carries: watch::Receiver<bool>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(carry(stream, upstream.clone(), carries.clone()));
    }
}

async fn carry(mut inner: TcpStream, upstream: String, mut carries: watch::Receiver<bool>) {
    if carries.wait_for(|carries| *carries).await.is_err() {
        return;
    }
    let Ok(mut outer) = TcpStream::connect(upstream).await else { return };
    tokio::select! {
        _ = copy_bidirectional(&mut inner, &mut outer) => return,
        _ = carries.wait_for(|carries| !carries) => {}
    }
    // Both ends learn that their connection is dead when the way is there again.
    let _ = carries.wait_for(|carries| *carries).await;
}
