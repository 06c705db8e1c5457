//! What Synapse, a proxy before it, or an impostor answers, and what we make of it.

use std::time::Duration;

use ems_bots::{
    domain::{DeviceId, Failure, Localpart, Retry, RoomId, UserId},
    homeserver::{
        Admin, Connect, Entry, HomeserverError, NewAccount, Session, User,
        synapse::{Connection, Settings, SettingsError},
    },
};
use secrecy::SecretString;
use serde_json::{Value, json};
use wiremock::{
    Mock, MockServer, Request, ResponseTemplate,
    matchers::{any, method, path},
};

const TOKEN: &str = "syt_very_secret_token";
const PASSWORD: &str = "hunter2-password";

fn connection(server: &MockServer) -> Connection {
    let mut settings = Settings::new(server.uri().parse().unwrap());
    settings.timeout = Duration::from_millis(500);
    Connection::new(&settings).unwrap()
}

fn session() -> Session {
    Session {
        user_id: UserId::parse("@admin:here.org").unwrap(),
        device_id: None,
        access_token: SecretString::from(TOKEN),
    }
}

fn admin(server: &MockServer) -> Box<dyn Admin> {
    connection(server).admin(session())
}

fn user(server: &MockServer) -> Box<dyn User> {
    connection(server).user(session())
}

fn entry(server: &MockServer) -> Box<dyn Entry> {
    connection(server).entry()
}

async fn answering(response: ResponseTemplate) -> MockServer {
    let server = MockServer::start().await;
    Mock::given(any()).respond_with(response).mount(&server).await;
    server
}

fn matrix(status: u16, errcode: &str, error: &str) -> ResponseTemplate {
    ResponseTemplate::new(status).set_body_json(json!({ "errcode": errcode, "error": error }))
}

fn html(status: u16) -> ResponseTemplate {
    ResponseTemplate::new(status).set_body_raw("<html><body>nginx</body></html>", "text/html")
}

/// What a call of the admin API makes of an answer.
async fn failure(response: ResponseTemplate) -> HomeserverError {
    let server = answering(response).await;
    let room = RoomId::parse("!room:here.org").unwrap();
    admin(&server).room_state(&room, None).await.unwrap_err()
}

#[tokio::test]
async fn every_answer_has_its_kind() {
    let table = [
        (matrix(401, "M_UNKNOWN_TOKEN", "Invalid access token"), "credential_refused"),
        (matrix(401, "M_MISSING_TOKEN", "Missing access token"), "credential_refused"),
        (matrix(401, "M_WHATEVER", ""), "credential_refused"),
        (html(401), "credential_refused"),
        (matrix(401, "M_USER_LOCKED", "User account has been locked"), "locked"),
        (matrix(403, "M_FORBIDDEN", "You are not a server admin"), "not_admin"),
        (matrix(403, "M_FORBIDDEN", "You may not"), "refused"),
        (matrix(403, "M_BAD_STATE", "Cannot invite user who was banned"), "refused"),
        (matrix(400, "M_USER_IN_USE", "User ID already taken."), "user_in_use"),
        (matrix(400, "M_UNKNOWN", "No local admin user in room"), "refused"),
        (matrix(404, "M_UNRECOGNIZED", "Unrecognized request"), "not_offered"),
        (matrix(405, "M_UNRECOGNIZED", "Unrecognized request"), "not_offered"),
        (matrix(404, "M_NOT_FOUND", "Room not found"), "not_found"),
        (html(403), "not_offered"),
        (html(404), "not_offered"),
        (html(400), "refused"),
        (html(500), "server_error"),
        (html(502), "server_error"),
        (matrix(504, "M_UNKNOWN", ""), "server_error"),
        (html(429), "rate_limited"),
        (matrix(429, "M_LIMIT_EXCEEDED", "Too Many Requests"), "rate_limited"),
        (html(200), "unreachable"),
        (ResponseTemplate::new(200).set_body_string("{\"state\": [{\"type\""), "unreachable"),
        (ResponseTemplate::new(200).set_body_string("[]"), "unreachable"),
        (ResponseTemplate::new(200).set_body_json(json!({ "unexpected": 1 })), "unreachable"),
        (ResponseTemplate::new(204), "unreachable"),
    ];
    for (response, category) in table {
        let told = format!("{response:?}");
        let error = failure(response).await;
        assert_eq!(error.category(), category, "{told}: {error}");
    }
}

#[tokio::test]
async fn the_wait_that_is_asked_for_is_kept_and_absurd_ones_are_not_believed() {
    let body = |ms: Value| {
        ResponseTemplate::new(429).set_body_json(json!({
            "errcode": "M_LIMIT_EXCEEDED", "error": "Too Many Requests", "retry_after_ms": ms,
        }))
    };
    assert_eq!(failure(body(json!(327_697))).await.retry(), Retry::After(Duration::from_millis(327_697)));
    assert_eq!(failure(body(json!(-1))).await.retry(), Retry::Backoff);
    assert_eq!(failure(body(json!(1e300))).await.retry(), Retry::Backoff);
    assert_eq!(failure(body(json!(1e12))).await.retry(), Retry::After(Duration::from_hours(1)));
    let header = html(429).insert_header("Retry-After", "7");
    assert_eq!(failure(header).await.retry(), Retry::After(Duration::from_secs(7)));
    let nonsense = html(429).insert_header("Retry-After", "soon");
    assert_eq!(failure(nonsense).await.retry(), Retry::Backoff);
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let elsewhere = answering(ResponseTemplate::new(200).set_body_json(json!({ "state": [] }))).await;
    let target = format!("{}/_synapse/admin/v1/rooms/x/state", elsewhere.uri());
    let error = failure(ResponseTemplate::new(307).insert_header("Location", target)).await;
    assert_eq!(error.category(), "unreachable");
    assert!(elsewhere.received_requests().await.unwrap().is_empty(), "the token stays here");
}

#[tokio::test]
async fn slow_answers_and_closed_ports_are_unreachable() {
    let slow = answering(ResponseTemplate::new(200).set_delay(Duration::from_secs(30))).await;
    let error = entry(&slow).versions().await.unwrap_err();
    assert_eq!(error.category(), "unreachable");
    assert_eq!(error.retry(), Retry::Backoff);

    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let settings = Settings::new(format!("http://127.0.0.1:{port}").parse().unwrap());
    let closed = Connection::new(&settings).unwrap();
    let error = closed.entry().versions().await.unwrap_err();
    assert!(error.to_string().contains(&format!("127.0.0.1:{port}")), "{error}");
    assert!(error.to_string().to_lowercase().contains("refused"), "{error}");
}

#[tokio::test]
async fn an_endless_answer_is_cut_off() {
    let server = answering(ResponseTemplate::new(200).set_body_bytes(vec![b' '; (1 << 20) + 1])).await;
    let error = entry(&server).versions().await.unwrap_err();
    assert!(error.to_string().contains("longer than"), "{error}");
}

#[tokio::test]
async fn no_error_repeats_a_secret() {
    let echo = |request: &Request| {
        let sent = format!("{:?} {}", request.headers, String::from_utf8_lossy(&request.body));
        let short: String = sent.chars().skip_while(|c| *c != '{').collect();
        matrix(400, TOKEN, &format!("{TOKEN} {PASSWORD} {}", &short[..short.len().min(40)]))
    };
    let server = MockServer::start().await;
    Mock::given(any()).respond_with(echo).mount(&server).await;
    let new = NewAccount {
        localpart: &Localpart::parse("bot").unwrap(),
        password: &SecretString::from(PASSWORD),
        admin: false,
        display_name: "Bot",
        ownership: "mark",
    };
    let error = admin(&server).create_account(&new).await.unwrap_err();
    let shown = format!("{error} {error:?}");
    assert!(!shown.contains(TOKEN) && !shown.contains(PASSWORD), "{shown}");
    assert!(shown.contains("[redacted]"));
    assert!(!format!("{:?}", connection(&server)).contains(TOKEN));
}

#[tokio::test]
async fn hostile_identifiers_stay_inside_their_segment() {
    let server = answering(ResponseTemplate::new(200).set_body_json(json!({ "state": [] }))).await;
    let room = RoomId::parse("!a/../../v1/users/@x?admin=1#f%2e%2e\\:here.org").unwrap();
    admin(&server).room_state(&room, Some("m.room.member&x=1")).await.unwrap();
    let request = &server.received_requests().await.unwrap()[0];
    let segments: Vec<&str> = request.url.path_segments().unwrap().collect();
    assert_eq!(segments.len(), 6, "{}", request.url);
    assert_eq!(&segments[..4], ["_synapse", "admin", "v1", "rooms"]);
    assert_eq!(segments[5], "state");
    let pairs: Vec<_> = request.url.query_pairs().collect();
    assert_eq!(pairs, [("type".into(), "m.room.member&x=1".into())]);

    let device = DeviceId::parse("..").unwrap();
    let alice = UserId::parse("@alice:here.org").unwrap();
    admin(&server).delete_device(&alice, &device).await.unwrap();
    assert_eq!(server.received_requests().await.unwrap().len(), 1, "no other endpoint is called instead");
}

#[tokio::test]
async fn refusals_of_entry_are_told_apart() {
    let bot = Localpart::parse("bot").unwrap();
    let password = SecretString::from(PASSWORD);
    let device = DeviceId::parse("DEV").unwrap();
    let table = [
        (matrix(403, "M_FORBIDDEN", "Invalid username or password"), "password_refused"),
        (matrix(403, "M_USER_DEACTIVATED", "deactivated"), "password_refused"),
        (matrix(400, "M_UNKNOWN", "Password login has been disabled."), "password_login_disabled"),
        (matrix(401, "M_USER_LOCKED", "locked"), "locked"),
        (matrix(404, "M_UNRECOGNIZED", ""), "not_offered"),
        (matrix(429, "M_LIMIT_EXCEEDED", ""), "rate_limited"),
    ];
    for (response, category) in table {
        let server = answering(response).await;
        let error = entry(&server).login(&bot, &password, &device).await.unwrap_err();
        assert_eq!(error.category(), category);
    }
    let secret = SecretString::from("shared");
    let table = [
        (matrix(403, "M_UNKNOWN", "HMAC incorrect"), "shared_secret_refused"),
        (matrix(400, "M_USER_IN_USE", "User ID already taken."), "user_in_use"),
        (html(502), "server_error"),
    ];
    for (response, category) in table {
        let server = MockServer::start().await;
        let nonce = ResponseTemplate::new(200).set_body_json(json!({ "nonce": "abc" }));
        Mock::given(method("GET")).respond_with(nonce).mount(&server).await;
        Mock::given(method("POST")).respond_with(response).mount(&server).await;
        let error = entry(&server).register_admin(&secret, &bot, &password).await.unwrap_err();
        assert_eq!(error.category(), category);
    }
    let off = answering(matrix(400, "M_UNKNOWN", "Shared secret registration is not enabled")).await;
    let error = entry(&off).register_admin(&secret, &bot, &password).await.unwrap_err();
    assert_eq!(error.category(), "not_offered");
}

#[tokio::test]
async fn a_name_that_somebody_took_meanwhile_is_not_marked_as_ours() {
    let server = MockServer::start().await;
    let body = json!({ "name": "@bot:here.org", "admin": false, "external_ids": [] });
    let updated = ResponseTemplate::new(200).set_body_json(body);
    Mock::given(method("PUT")).respond_with(updated).mount(&server).await;
    let new = NewAccount {
        localpart: &Localpart::parse("bot").unwrap(),
        password: &SecretString::from(PASSWORD),
        admin: false,
        display_name: "Bot",
        ownership: "mark",
    };
    let error = admin(&server).create_account(&new).await.unwrap_err();
    assert_eq!(error.category(), "user_in_use");
    let last = server.received_requests().await.unwrap().pop().unwrap();
    assert_eq!(last.body_json::<Value>().unwrap(), json!({ "external_ids": [] }));
}

#[tokio::test]
async fn an_avatar_is_uploaded_as_it_is_and_then_set() {
    let server = MockServer::start().await;
    let uploaded = ResponseTemplate::new(200).set_body_json(json!({ "content_uri": "mxc://here.org/abc" }));
    Mock::given(path("/_matrix/media/v3/upload")).respond_with(uploaded).mount(&server).await;
    Mock::given(method("PUT"))
        .respond_with(ResponseTemplate::new(200).set_body_json(json!({})))
        .mount(&server)
        .await;
    let bot = UserId::parse("@bot:here.org").unwrap();
    admin(&server).set_avatar(&bot, b"\x89PNG picture").await.unwrap();
    let requests = server.received_requests().await.unwrap();
    assert_eq!(requests[0].headers["content-type"], "image/png");
    assert_eq!(requests[0].body, b"\x89PNG picture");
    assert_eq!(requests[1].url.path(), "/_synapse/admin/v2/users/@bot:here.org");
    assert_eq!(requests[1].body_json::<Value>().unwrap(), json!({ "avatar_url": "mxc://here.org/abc" }));
}

#[tokio::test]
async fn limits_are_written_only_when_they_differ() {
    for (now, unlimited, writes) in [
        (json!({}), true, vec!["POST"]),
        (json!({ "messages_per_second": 0, "burst_count": 0 }), true, vec![]),
        (json!({ "messages_per_second": 5, "burst_count": 0 }), true, vec!["POST"]),
        (json!({}), false, vec![]),
        (json!({ "messages_per_second": 0, "burst_count": 0 }), false, vec!["DELETE"]),
    ] {
        let server = answering(ResponseTemplate::new(200).set_body_json(&now)).await;
        let alice = UserId::parse("@alice:here.org").unwrap();
        admin(&server).set_unlimited(&alice, unlimited).await.unwrap();
        let requests = server.received_requests().await.unwrap();
        let methods: Vec<String> = requests.iter().skip(1).map(|r| r.method.to_string()).collect();
        assert_eq!(methods, writes, "{now} {unlimited}");
    }
}

#[tokio::test]
async fn every_page_of_the_rooms_is_read_and_an_absurd_row_hides_no_other() {
    let server = MockServer::start().await;
    let page = |request: &Request| {
        let from = request.url.query_pairs().find(|(name, _)| name == "from").unwrap().1.into_owned();
        let body = match from.as_str() {
            "0" => {
                json!({ "rooms": [{ "room_id": "!a:h", "joined_members": 0 }, { "room_id": 7, "joined_members": 1 }], "total_rooms": 3, "next_batch": 2 })
            }
            "2" => {
                json!({ "rooms": [{ "room_id": "!b:h", "creator": "" }], "total_rooms": 3, "next_batch": 2 })
            }
            other => panic!("asked from {other}"),
        };
        ResponseTemplate::new(200).set_body_json(body)
    };
    Mock::given(path("/_synapse/admin/v1/rooms")).respond_with(page).mount(&server).await;
    let list = admin(&server).rooms().await.unwrap();
    assert_eq!(list.inhabited, 2, "that one cannot be read does not make it empty");
    let rooms = list.rooms;
    let ids: Vec<&str> = rooms.iter().map(|room| room.room_id.as_str()).collect();
    assert_eq!(ids, ["!a:h", "!b:h"]);
    assert_eq!(rooms[1].creator, None);
}

#[tokio::test]
async fn acts_of_a_user_carry_its_token_and_nothing_else_does() {
    let server = answering(ResponseTemplate::new(200).set_body_json(json!({ "versions": [] }))).await;
    let room = RoomId::parse("!a:here.org").unwrap();
    user(&server).put_state(&room, "m.x", "", &json!({ "a": 1 })).await.unwrap();
    user(&server).put_state(&room, "m.x", "key/part", &json!({})).await.unwrap();
    entry(&server).versions().await.unwrap();
    let requests = server.received_requests().await.unwrap();
    assert_eq!(requests[0].url.path(), "/_matrix/client/v3/rooms/!a:here.org/state/m.x");
    assert_eq!(requests[1].url.path(), "/_matrix/client/v3/rooms/!a:here.org/state/m.x/key%2Fpart");
    assert_eq!(requests[0].headers["authorization"], format!("Bearer {TOKEN}"));
    assert!(!requests[2].headers.contains_key("authorization"));
}

#[tokio::test]
async fn uploads_are_told_from_previews_and_a_bridge_has_none() {
    let unknown = answering(matrix(404, "M_NOT_FOUND", "Unknown user")).await;
    let inspect = connection(&unknown).inspect(session());
    assert_eq!(inspect.uploads("@bridge:here.org", 0).await.unwrap().rows, []);
    let file = |id: &str, page: Option<&str>| json!({"media_id": id, "created_ts": 1, "url_cache": page});
    let media = json!({"media": [file("a", None), file("b", Some("https://example.org"))], "total": 2});
    let known = answering(ResponseTemplate::new(200).set_body_json(media)).await;
    let rows = connection(&known).inspect(session()).uploads("@alice:here.org", 0).await.unwrap().rows;
    let rows: Vec<_> = rows.iter().map(|row| (row.media.as_str(), row.is_preview)).collect();
    assert_eq!(rows, [("a", false), ("b", true)]);
}

#[tokio::test]
async fn a_homeserver_without_the_module_is_told_from_one_that_does_not_answer() {
    let module = async |response: ResponseTemplate| {
        let server = answering(response).await;
        connection(&server).inspect(session()).module().await
    };
    assert_eq!(module(matrix(404, "M_UNRECOGNIZED", "Unrecognized request")).await.unwrap(), None);
    assert_eq!(module(matrix(404, "M_NOT_FOUND", "not here")).await.unwrap(), None);
    assert!(module(html(502)).await.is_err());
    // A web client that is served for every path.
    assert!(module(html(200)).await.is_err());
    let bots = json!([{"userId": "@auditbot:here.org", "rooms": {"directMessages": false}}, {"userId": "@b:here.org"}]);
    let status = json!({"version": "0.1.0", "active": true, "bots": bots, "later": 1});
    let facts = module(ResponseTemplate::new(200).set_body_json(status)).await.unwrap().unwrap();
    assert_eq!((facts.version.as_str(), facts.active, facts.bots.len()), ("0.1.0", true, 2));
    assert_eq!(facts.bots["@auditbot:here.org"], json!({"directMessages": false}));
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let with = |url: &str| Connection::new(&Settings::new(url.parse().unwrap()));
    assert!(matches!(with("ftp://here.org"), Err(SettingsError::Url)));
    assert!(matches!(with("https://user:pw@here.org"), Err(SettingsError::Url)));
    let mut settings = Settings::new("https://here.org".parse().unwrap());
    settings.ca_pem = Some(b"no certificate".to_vec());
    assert!(matches!(Connection::new(&settings), Err(SettingsError::Ca(_))));
    settings.ca_pem = None;
    settings.proxy = Some("::::".into());
    assert!(matches!(Connection::new(&settings), Err(SettingsError::Proxy)));
}
