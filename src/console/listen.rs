//! Connections: how many there may be, from whom, and how they end.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Extension, Router,
    http::{HeaderValue, header},
    middleware::map_response,
    response::Response,
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{server::HasCertificate, tls::Acceptor};

/// How long a connection may be silent.
const SILENCE: Duration = Duration::from_secs(20);
/// So many connections at the same time; more wait.
const CONNECTIONS: usize = 512;
/// So many of them from one address; more are closed at once.
const OF_ONE: usize = 128;

/// Serves until `soft` is cancelled and then for so long as `drain` says, in which whoever distributes connections
/// learns that this process ends. Whoever is answered in that time is told to use the connection no more: what he sends on
/// one that is closed at that moment would get no answer. What is under way after that is finished.
pub async fn serve_on(
    listener: TcpListener,
    acceptor: Acceptor,
    router: Router,
    soft: CancellationToken,
    drain: Duration,
) {
    let (connections, ending) = (TaskTracker::new(), CancellationToken::new());
    let (places, peers) = (Arc::new(Semaphore::new(CONNECTIONS)), Peers::default());
    let accept = async {
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let Some((stream, address)) = next(&listener).await else { continue };
            let Some(guest) = peers.admit(address.ip()) else {
                tracing::debug!(%address, "too many connections from one address");
                continue;
            };
            let (acceptor, router, ending) = (acceptor.clone(), until(&soft, router.clone()), ending.clone());
            connections.spawn(async move {
                connection(stream, acceptor, router, ending).await;
                drop((place, guest));
            });
        }
    };
    tokio::select! {
        () = accept => {}
        () = drained(&soft, drain) => {}
    }
    // Nobody may come to a listener whose connections nobody accepts.
    drop(listener);
    ending.cancel();
    connections.close();
    connections.wait().await;
}

/// The last answer on a connection says so.
fn until(soft: &CancellationToken, router: Router) -> Router {
    let soft = soft.clone();
    router.layer(map_response(move |mut response: Response| {
        if soft.is_cancelled() {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        std::future::ready(response)
    }))
}

async fn drained(soft: &CancellationToken, drain: Duration) {
    soft.cancelled().await;
    tokio::time::sleep(drain).await;
}

async fn next(listener: &TcpListener) -> Option<(TcpStream, SocketAddr)> {
    let accepted = listener.accept().await;
    if accepted.is_err() {
        // Out of file descriptors, as a rule: that passes, and must not become a busy loop.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    accepted.ok()
}

async fn connection(stream: TcpStream, acceptor: Acceptor, router: Router, ending: CancellationToken) {
    let Some((stream, has_certificate)) = acceptor.accept(stream).await else { return };
    let service = router.layer(Extension(HasCertificate(has_certificate)));
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(SILENCE)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = ending.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}

/// How many connections there are, by address.
#[derive(Clone, Default)]
struct Peers(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One of the connections from an address.
struct Guest {
    peers: Peers,
    address: IpAddr,
}

impl Peers {
    fn admit(&self, address: IpAddr) -> Option<Guest> {
        let address = address.to_canonical();
        let is_admitted = self.with(|counts| {
            let count = counts.entry(address).or_default();
            let is_admitted = *count < OF_ONE;
            *count += usize::from(is_admitted);
            is_admitted
        });
        is_admitted.then(|| Guest { peers: self.clone(), address })
    }

    fn with<T>(&self, act: impl FnOnce(&mut HashMap<IpAddr, usize>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.peers.with(|counts| {
            let left = counts.get(&self.address).map_or(0, |count| count.saturating_sub(1));
            if left == 0 {
                counts.remove(&self.address);
            } else {
                counts.insert(self.address, left);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_has_so_many_connections_and_leaves_the_others_theirs() {
        let peers = Peers::default();
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let mut guests: Vec<Guest> = (0..OF_ONE).map_while(|_| peers.admit(address("10.0.0.1"))).collect();
        assert_eq!(guests.len(), OF_ONE);
        assert!(peers.admit(address("10.0.0.1")).is_none());
        assert!(peers.admit(address("::ffff:10.0.0.1")).is_none(), "the same one, written in another way");
        assert!(peers.admit(address("10.0.0.2")).is_some());
        guests.pop();
        guests.extend(peers.admit(address("10.0.0.1")));
        assert_eq!(guests.len(), OF_ONE);
        guests.clear();
        assert!(peers.with(|counts| counts.is_empty()), "addresses are not remembered");
    }
}
