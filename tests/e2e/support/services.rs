//! Homeservers and databases, by `dev/run`.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Mutex,
};

use serde_json::Value;

pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs `dev/run`, with something for its standard input, and returns its standard output.
pub fn dev(arguments: &[&str], input: Option<&str>) -> String {
    let mut child = Command::new(repository().join("dev/run"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("dev/run starts");
    child.stdin.take().unwrap().write_all(input.unwrap_or_default().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "dev/run {} failed; its messages are above", arguments.join(" "));
    String::from_utf8(output.stdout).unwrap()
}

/// As [`dev`] with `--json`.
pub fn dev_json(arguments: &[&str], input: Option<&str>) -> Value {
    let mut all = arguments.to_vec();
    all.push("--json");
    let text = dev(&all, input);
    serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("dev/run {all:?} printed no JSON: {error}: {text}"))
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_else(|| panic!("{key} is missing in {value}")).to_owned()
}

/// A homeserver of this test's own; wiped when dropped.
#[derive(Debug)]
pub struct Synapse {
    pub name: String,
    pub server_name: String,
    /// As this process reaches it, admin API included.
    pub host_url: String,
    /// As pods reach it, admin API included.
    pub pod_url: String,
    /// As pods reach it with TLS; the certificate is of the authority in `ca_file`.
    pub pod_tls_url: String,
    pub ca_file: PathBuf,
    /// As this process reaches it through the public proxy, admin API refused.
    pub host_public_url: String,
    /// As pods reach the public proxy.
    pub pod_public_url: String,
    pub pod_names: Vec<String>,
    pub registration_shared_secret: String,
    /// A server admin's access token, once somebody needed it: asking for it starts a process.
    known_token: Mutex<Option<String>>,
}

/// An account of a test's person.
#[derive(Debug, Clone)]
pub struct Person {
    pub user_id: String,
    pub password: String,
    pub access_token: String,
}

impl Synapse {
    /// With Synapse's default configuration and limits.
    pub fn up(name: &str) -> Self {
        Self::up_with(name, &[], None)
    }

    /// One that federates with others of this machine, without limits.
    pub fn federated(name: &str) -> Self {
        Self::up_with(name, &["--federates", "--limits", "off"], None)
    }

    /// With options of `dev/run synapse up`; `extra` is JSON merged into the configuration
    /// (pass `--extra`, `-` among the options).
    pub fn up_with(name: &str, options: &[&str], extra: Option<&str>) -> Self {
        let mut arguments = vec!["synapse", "up", name];
        arguments.extend(options);
        let value = dev_json(&arguments, extra);
        Self {
            name: name.to_owned(),
            server_name: text(&value, "server_name"),
            host_url: text(&value, "host_internal_url"),
            pod_url: text(&value, "pod_internal_url"),
            pod_tls_url: text(&value, "pod_internal_tls_url"),
            ca_file: text(&value, "ca_file").into(),
            host_public_url: text(&value, "host_public_url"),
            pod_public_url: text(&value, "pod_public_url"),
            pod_names: serde_json::from_value(value["pod_names"].clone()).unwrap(),
            registration_shared_secret: text(&value, "registration_shared_secret"),
            known_token: Mutex::default(),
        }
    }

    pub fn stop(&self) {
        dev(&["synapse", "down", &self.name], None);
    }

    /// A person's account, without rate limits of its own.
    pub fn register(&self, user: &str) -> Person {
        let value = dev_json(&["synapse", "register", &self.name, user], None);
        Person {
            user_id: text(&value, "user_id"),
            password: text(&value, "password"),
            access_token: text(&value, "access_token"),
        }
    }

    /// A server admin's access token.
    pub fn admin_token(&self) -> String {
        text(&dev_json(&["synapse", "admin-token", &self.name], None), "access_token")
    }

    pub fn user_id(&self, localpart: &str) -> String {
        format!("@{localpart}:{}", self.server_name)
    }

    /// One request to the homeserver as a server admin; status and body.
    pub async fn admin(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let known = self.known_token.lock().unwrap().clone();
        if let Some(token) = known {
            let (status, answer) = self.request(method, path, &token, body.clone()).await;
            // A test may have ended that session.
            if status != 401 {
                return (status, answer);
            }
        }
        let token = self.admin_token();
        self.known_token.lock().unwrap().replace(token.clone());
        self.request(method, path, &token, body).await
    }

    /// One request with any token; status and body.
    pub async fn request(&self, method: &str, path: &str, token: &str, body: Option<Value>) -> (u16, Value) {
        super::init();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = http.request(method, format!("{}{path}", self.host_url)).bearer_auth(token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.expect("the homeserver answers");
        (answer.status().as_u16(), answer.json().await.unwrap_or(Value::Null))
    }

    /// Membership and power level of a user in a room, as the admin API shows the state.
    pub async fn standing(&self, room: &str, user: &str) -> (String, i64) {
        let path = format!("/_synapse/admin/v1/rooms/{}/state", urlencode(room));
        let (status, answer) = self.admin("GET", &path, None).await;
        assert_eq!(status, 200, "{answer}");
        let (mut membership, mut power) = ("none".to_owned(), 0);
        for event in answer["state"].as_array().unwrap() {
            match event["type"].as_str().unwrap() {
                "m.room.member" if event["state_key"] == user => {
                    event["content"]["membership"].as_str().unwrap().clone_into(&mut membership);
                }
                "m.room.power_levels" => power = event["content"]["users"][user].as_i64().unwrap_or(0),
                _ => {}
            }
        }
        (membership, power)
    }
}

impl Drop for Synapse {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            dev(&["synapse", "wipe", &self.name], None);
        }
    }
}

/// Percent-encodes what goes into a path.
pub fn urlencode(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}

/// A database of this test's own; dropped with its owner when dropped.
#[derive(Debug)]
pub struct Database {
    pub name: String,
    /// URL of the owner, as this process reaches it.
    pub host_url: String,
    /// Data of the Secret, in CloudNativePG's format, as pods reach it.
    pub secret: Value,
    /// Certificate authority of the server.
    pub ca_file: PathBuf,
}

impl Database {
    /// The owner may create roles.
    pub fn tenant(name: &str) -> Self {
        Self::of(&["postgres", "tenant", name], name)
    }

    /// The owner may not create roles.
    pub fn limited(name: &str) -> Self {
        Self::of(&["postgres", "limited", name], name)
    }

    /// Reached through PgBouncer in transaction pooling mode.
    pub fn pooled(name: &str) -> Self {
        Self::of(&["postgres", "pgbouncer", name], name)
    }

    fn of(arguments: &[&str], name: &str) -> Self {
        let value = dev_json(arguments, None);
        Self {
            name: name.to_owned(),
            host_url: text(&value, "host_url"),
            secret: value["secret"].clone(),
            ca_file: text(&value, "ca_file").into(),
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            dev(&["postgres", "drop", &self.name], None);
        }
    }
}
