//! A TCP proxy on loopback that does to what goes through it what networks, proxies and servers do:
//! connections are refused, cut in the middle of a message or held up, and requests are answered by
//! something that is not the homeserver.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, tcp::ReadHalf, tcp::WriteHalf},
    sync::{oneshot, watch},
    time::Instant,
};

const LOOPBACK: &str = "127.0.0.1";

/// Below the ports that the system gives to outgoing connections: one that was given up for a moment
/// must not be taken by another.
const PORTS: std::ops::Range<u16> = 20_000..30_000;

/// Longer than any test.
const FOR_EVER: Duration = Duration::from_hours(1000);

/// One of them strikes at a time.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// Ends all connections and refuses new ones for so long.
    Refuse(Duration),
    /// Resets the connection that carries this byte, counted from now in both directions.
    Reset(usize),
    /// Ends the connection after this byte of what the server says, counted from now.
    Cut(usize),
    /// Carries nothing for so long.
    Stall(Duration),
    /// Holds the connection that carries this byte for ever: whoever is at its end is killed now.
    Hold(usize),
    /// Answers the next request with this in its path instead of the homeserver.
    Answer(&'static Canned, &'static str),
}

impl Fault {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Refuse(_) => "connections refused",
            Self::Reset(_) => "connection reset",
            Self::Cut(_) => "answer cut",
            Self::Stall(_) => "stall",
            Self::Hold(_) => "hold",
            Self::Answer(canned, _) => canned.name,
        }
    }

    /// For how long, after how many bytes, or to what.
    pub fn detail(&self) -> String {
        match self {
            Self::Refuse(time) | Self::Stall(time) => format!("{time:?}"),
            Self::Reset(bytes) | Self::Cut(bytes) | Self::Hold(bytes) => format!("after {bytes} bytes"),
            Self::Answer(_, part) => format!("to {part:?}"),
        }
    }
}

/// What answers in the homeserver's place.
#[derive(Debug)]
pub struct Canned {
    pub name: &'static str,
    /// Status line and headers of its own, without those that every answer has.
    head: &'static str,
    body: &'static str,
}

pub const CANNED: [Canned; 7] = [
    Canned {
        name: "502 with HTML",
        head: "502 Bad Gateway\r\nContent-Type: text/html",
        body: "<html><body><h1>502 Bad Gateway</h1>nginx</body></html>",
    },
    Canned {
        name: "404 with HTML",
        head: "404 Not Found\r\nContent-Type: text/html",
        body: "<html><body><h1>404 Not Found</h1>default backend</body></html>",
    },
    Canned {
        name: "429 for a second",
        head: "429 Too Many Requests\r\nContent-Type: application/json\r\nRetry-After: 1",
        body: r#"{"errcode":"M_LIMIT_EXCEEDED","error":"Too many requests","retry_after_ms":1000}"#,
    },
    Canned { name: "503 without a body", head: "503 Service Unavailable", body: "" },
    Canned {
        name: "500 with JSON",
        head: "500 Internal Server Error\r\nContent-Type: application/json",
        body: r#"{"errcode":"M_UNKNOWN","error":"Internal server error"}"#,
    },
    Canned { name: "200 without a body", head: "200 OK\r\nContent-Type: application/json", body: "" },
    Canned {
        name: "200 with half a body",
        head: "200 OK\r\nContent-Type: application/json",
        body: r#"{"next_batch":"s999999_1_1_1_1_1_1_1_1","rooms":{"join":{"!a:b":{"timeline":{"events":[{"typ"#,
    },
];

struct Armed {
    fault: Fault,
    left: usize,
    struck: oneshot::Sender<()>,
}

struct Inner {
    upstream: String,
    armed: Mutex<Option<Armed>>,
    /// Every change ends all connections.
    broken: watch::Sender<()>,
    refusing: watch::Sender<Instant>,
    stalled: watch::Sender<Instant>,
    connections: AtomicUsize,
    requests: Mutex<BTreeMap<&'static str, u64>>,
}

/// See the module. Stops listening with the test's runtime.
#[derive(Clone)]
pub struct Proxy {
    pub port: u16,
    inner: Arc<Inner>,
}

enum Pass {
    All,
    First(usize, End),
    Answer(&'static Canned),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Closed,
    Reset,
    Held,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    ToServer,
    ToClient,
}

impl Proxy {
    /// In front of what this process reaches at a URL.
    pub async fn before(url: &str) -> Self {
        Self::open(url::Url::parse(url).unwrap().port().unwrap()).await
    }

    /// In front of a port of this machine.
    pub async fn open(upstream: u16) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let start = std::process::id() as usize * 16 + NEXT.fetch_add(1, Ordering::Relaxed);
        let mut port = PORTS.start + u16::try_from(start % PORTS.len()).unwrap();
        let listener = loop {
            match TcpListener::bind((LOOPBACK, port)).await {
                Ok(listener) => break listener,
                Err(_) => port = if port + 1 < PORTS.end { port + 1 } else { PORTS.start },
            }
        };
        let now = Instant::now();
        let inner = Arc::new(Inner {
            upstream: format!("{LOOPBACK}:{upstream}"),
            armed: Mutex::default(),
            broken: watch::Sender::default(),
            refusing: watch::Sender::new(now),
            stalled: watch::Sender::new(now),
            connections: AtomicUsize::new(0),
            requests: Mutex::default(),
        });
        tokio::spawn(listen(inner.clone(), listener, port));
        Self { port, inner }
    }

    /// Has a fault happen, and waits until it does. If there is no occasion for so long, there is none:
    /// `false`.
    pub async fn strike(&self, fault: Fault, within: Duration) -> bool {
        let (struck, occasion) = oneshot::channel();
        let left = match fault {
            Fault::Reset(bytes) | Fault::Cut(bytes) | Fault::Hold(bytes) => bytes.max(1),
            Fault::Answer(..) => 0,
            Fault::Refuse(_) | Fault::Stall(_) => return self.strike_now(fault, within).await,
        };
        *self.inner.armed.lock().unwrap() = Some(Armed { fault, left, struck });
        if tokio::time::timeout(within, occasion).await.is_ok_and(|struck| struck.is_ok()) {
            return true;
        }
        // It may have struck in this moment.
        self.inner.armed.lock().unwrap().take().is_none()
    }

    async fn strike_now(&self, fault: Fault, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        while self.inner.connections.load(Ordering::Relaxed) == 0 {
            if Instant::now() > deadline {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        match fault {
            Fault::Refuse(time) => self.refuse(time),
            Fault::Stall(time) => drop(self.inner.stalled.send_replace(Instant::now() + time)),
            _ => unreachable!(),
        }
        true
    }

    fn refuse(&self, time: Duration) {
        self.inner.refusing.send_replace(Instant::now() + time);
        self.inner.broken.send_replace(());
    }

    /// Ends all connections and refuses new ones until it is mended.
    pub fn cut(&self) {
        self.refuse(FOR_EVER);
    }

    pub fn mend(&self) {
        self.inner.refusing.send_replace(Instant::now());
    }

    /// Requests so far, by what they are for.
    pub fn requests(&self) -> BTreeMap<&'static str, u64> {
        self.inner.requests.lock().unwrap().clone()
    }
}

async fn listen(inner: Arc<Inner>, listener: TcpListener, port: u16) {
    let mut listener = Some(listener);
    let mut refusing = inner.refusing.subscribe();
    loop {
        let until = *refusing.borrow_and_update();
        if until > Instant::now() {
            listener = None;
            tokio::select! {
                () = tokio::time::sleep_until(until) => {}
                _ = refusing.changed() => {}
            }
            continue;
        }
        let Some(open) = &listener else {
            listener = TcpListener::bind((LOOPBACK, port)).await.ok();
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        tokio::select! {
            accepted = open.accept() => if let Ok((client, _)) = accepted {
                tokio::spawn(carry(inner.clone(), client));
            },
            _ = refusing.changed() => {}
        }
    }
}

async fn carry(inner: Arc<Inner>, mut client: TcpStream) {
    let mut broken = inner.broken.subscribe();
    // Accepted in the moment in which all were ended: it would outlive them.
    if *inner.refusing.borrow() > Instant::now() {
        return;
    }
    let Ok(mut server) = TcpStream::connect(&inner.upstream).await else { return };
    let (_, _) = (client.set_nodelay(true), server.set_nodelay(true));
    inner.connections.fetch_add(1, Ordering::Relaxed);
    let end = inner.pump(&mut client, &mut server, &mut broken).await;
    if end.unwrap_or(End::Closed) == End::Reset {
        let (_, _) = (client.set_zero_linger(), server.set_zero_linger());
    }
    inner.connections.fetch_sub(1, Ordering::Relaxed);
}

impl Inner {
    async fn pump(
        &self,
        client: &mut TcpStream,
        server: &mut TcpStream,
        broken: &mut watch::Receiver<()>,
    ) -> std::io::Result<End> {
        let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
            (client.split(), server.split());
        let (mut asked, mut said) = (vec![0; 32 * 1024], vec![0; 32 * 1024]);
        loop {
            let (direction, bytes) = tokio::select! {
                read = from_client.read(&mut asked) => (Direction::ToServer, &asked[..read?]),
                read = from_server.read(&mut said) => (Direction::ToClient, &said[..read?]),
                _ = broken.changed() => return Ok(End::Reset),
            };
            if bytes.is_empty() {
                return Ok(End::Closed);
            }
            self.stalled().await;
            let to = if direction == Direction::ToServer { &mut to_server } else { &mut to_client };
            match self.passes(direction, bytes) {
                Pass::All => to.write_all(bytes).await?,
                Pass::First(count, end) => {
                    to.write_all(&bytes[..count]).await?;
                    if end == End::Held {
                        // It ends with the one that is killed.
                        while from_client.read(&mut asked).await? > 0 {}
                    }
                    return Ok(end);
                }
                Pass::Answer(canned) => {
                    answer(canned, bytes, &mut from_client, &mut to_client).await?;
                    return Ok(End::Closed);
                }
            }
        }
    }

    async fn stalled(&self) {
        let until = *self.stalled.borrow();
        if until > Instant::now() {
            tokio::time::sleep_until(until).await;
        }
    }

    /// How much of this goes through.
    fn passes(&self, direction: Direction, bytes: &[u8]) -> Pass {
        let request = (direction == Direction::ToServer).then(|| path(bytes)).flatten();
        if let Some(path) = request {
            *self.requests.lock().unwrap().entry(purpose(path)).or_default() += 1;
        }
        let mut armed = self.armed.lock().unwrap();
        let Some(next) = armed.as_mut() else { return Pass::All };
        let (counts, end) = match next.fault {
            Fault::Reset(_) => (true, End::Reset),
            Fault::Hold(_) => (true, End::Held),
            Fault::Cut(_) => (direction == Direction::ToClient, End::Closed),
            Fault::Answer(_, part) => (request.is_some_and(|path| path.contains(part)), End::Closed),
            Fault::Refuse(_) | Fault::Stall(_) => (false, End::Closed),
        };
        if !counts {
            return Pass::All;
        }
        if next.left > bytes.len() {
            next.left -= bytes.len();
            return Pass::All;
        }
        let Some(Armed { fault, left, struck }) = armed.take() else { return Pass::All };
        let _ = struck.send(());
        match fault {
            Fault::Answer(canned, _) => Pass::Answer(canned),
            _ => Pass::First(left, end),
        }
    }
}

/// Reads the rest of the request, so that the answer is not lost in a reset, and answers it.
async fn answer(
    canned: &Canned,
    request: &[u8],
    from_client: &mut ReadHalf<'_>,
    to_client: &mut WriteHalf<'_>,
) -> std::io::Result<()> {
    let text = String::from_utf8_lossy(request);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok()).flatten()
    });
    let mut missing = length.unwrap_or(0_usize).saturating_sub(body.len());
    let mut rest = vec![0; 32 * 1024];
    while missing > 0 {
        let read = from_client.read(&mut rest).await?;
        if read == 0 {
            return Ok(());
        }
        missing = missing.saturating_sub(read);
    }
    let Canned { head, body, .. } = canned;
    let text =
        format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
    to_client.write_all(text.as_bytes()).await?;
    to_client.shutdown().await?;
    while from_client.read(&mut rest).await? > 0 {}
    Ok(())
}

/// The path of a request that begins here.
fn path(bytes: &[u8]) -> Option<&str> {
    let line = bytes.split(|byte| *byte == b'\r').next()?;
    let line = std::str::from_utf8(line).ok()?.strip_suffix(" HTTP/1.1")?;
    let (method, path) = line.split_once(' ')?;
    ["GET", "PUT", "POST", "DELETE"].contains(&method).then_some(path)
}

fn purpose(path: &str) -> &'static str {
    let purposes = [
        ("/sync", "/sync"),
        ("/messages", "/messages"),
        ("/fetch_event/", "/fetch_event"),
        ("/keys/", "/keys"),
        ("/make_room_admin", "/make_room_admin"),
        ("/joined_rooms", "/joined_rooms"),
        ("/_synapse/admin/v1/rooms?", "lists of rooms"),
        ("/_synapse/admin/v1/rooms/", "a room"),
        ("/_synapse/admin/", "admin API"),
    ];
    purposes.iter().find(|(part, _)| path.contains(part)).map_or("others", |(_, purpose)| purpose)
}
