//! A worker as a process of this machine, without a cluster: the custom resource is a file.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use ems_bots::{
    domain::{
        filter::{PageRequest, SearchFilter, StoredRecord},
        record::RecordDraft,
    },
    store::{
        AuditReader as _,
        pg::{
            Endpoint, PgReader, SchemaName,
            migrate::{RoleSource, RoleSources, migrate},
        },
    },
};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Database, Synapse, eventually, services::urlencode, sql};

/// One bot's worker, its folders and its trail.
pub struct LocalWorker {
    pub kind: &'static str,
    pub user_id: String,
    pub password: String,
    pub phrase: String,
    pub folder: TempDir,
    pub listen: u16,
    pub database: String,
    owner: Endpoint,
    process: Option<Child>,
    /// Where it finds its homeserver, if not directly.
    way: Option<String>,
    /// It looks as often as in production at what nobody tells it of, and not every two seconds.
    pub at_ease: bool,
}

fn write(folder: &TempDir, name: &str, text: &str) {
    let path = folder.path().join("etc").join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

impl LocalWorker {
    /// Makes the account, migrates the database and writes the Secrets; nothing runs yet.
    pub async fn prepare(kind: &'static str, synapse: &Synapse, database: &Database) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (user, password, phrase) =
            (synapse.user_id(kind), format!("password of {kind}"), format!("phrase of {kind}"));
        let path = format!("/_synapse/admin/v2/users/{}", urlencode(&user));
        let body = json!({"password": password, "displayname": kind, "user_type": "bot"});
        let (status, answer) = synapse.admin("PUT", &path, Some(body)).await;
        assert!(status == 200 || status == 201, "{answer}");
        let token = synapse.admin_token();
        let (_, me) = synapse.request("GET", "/_matrix/client/v3/account/whoami", &token, None).await;
        let admin = me["user_id"].as_str().unwrap();
        let limits = format!("/_synapse/admin/v1/users/{}/override_ratelimit", urlencode(admin));
        synapse.admin("POST", &limits, Some(json!({"messages_per_second": 0, "burst_count": 0}))).await;
        for (name, text) in [
            ("account/username", kind),
            ("account/password", &password),
            ("account/device-prefix", "EMSTEST"),
            ("backup-phrase/phrase", &phrase),
            ("admin/access-token", &token),
            ("admin/user-id", admin),
            ("database/host", "127.0.0.1"),
            ("database/port", database.secret["port"].as_str().unwrap_or("5432")),
            ("database/dbname", database.secret["dbname"].as_str().unwrap()),
            ("database-roles/writer-password", "writer-password"),
            ("database-roles/inbox-password", "inbox-password"),
        ] {
            write(&folder, name, text);
        }
        let owner = migrated(kind, database).await;
        let worker = Self {
            kind,
            user_id: user,
            password,
            phrase,
            listen: free_port(),
            database: database.name.clone(),
            folder,
            owner,
            process: None,
            way: None,
            at_ease: false,
        };
        worker.instruct(synapse, &json!({}), &json!({}));
        worker
    }

    /// Has it reach its homeserver and its database by these ports of this machine from the next start on.
    pub fn go_through(&mut self, homeserver: u16, database: u16) {
        self.way = Some(format!("http://127.0.0.1:{homeserver}"));
        write(&self.folder, "database/port", &database.to_string());
    }

    /// The owner of its database, directly.
    pub fn owner(&self) -> &Endpoint {
        &self.owner
    }

    /// Writes the custom resource.
    pub fn instruct(&self, synapse: &Synapse, spec: &Value, metadata: &Value) {
        let mut resource = json!({
            "apiVersion": "ems.element.io/v1alpha1",
            "kind": if self.kind == "adminbot" { "AdminBot" } else { "AuditBot" },
            "metadata": {"name": self.kind, "namespace": "local", "generation": 1},
            "spec": {"homeserver": {"serverName": synapse.server_name, "url": synapse.host_url, "plan": "Gold"}},
        });
        super::tenant::merge(&mut resource["spec"], spec.clone());
        super::tenant::merge(&mut resource["metadata"], metadata.clone());
        let fresh = self.folder.path().join("bot.yaml.new");
        fs::write(&fresh, resource.to_string()).unwrap();
        fs::rename(fresh, self.folder.path().join("bot.yaml")).unwrap();
    }

    pub fn start(&mut self, synapse: &Synapse) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log_file()).unwrap();
        let program =
            std::env::var("EMS_TEST_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_ems-bots").to_owned());
        let child = Command::new(program)
            .arg("worker")
            .args(["--kind", self.kind, "--namespace", "local", "--name", self.kind])
            .args(["--homeserver-url", self.way.as_ref().unwrap_or(&synapse.host_url)])
            .arg("--config-dir")
            .arg(self.folder.path().join("etc"))
            .arg("--data-dir")
            .arg(self.data())
            .arg("--local")
            .arg(self.folder.path().join("bot.yaml"))
            .args(["--listen", &format!("127.0.0.1:{}", self.listen)])
            .args(if self.at_ease { &[][..] } else { &["--examine-seconds", "2", "--survey-seconds", "2"] })
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the worker starts");
        self.process = Some(child);
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("it runs");
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// Sends it a signal, by name.
    pub fn signal(&self, name: &str) {
        let id = self.process.as_ref().expect("it runs").id().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap();
        assert!(sent.success(), "the worker takes {name}");
    }

    /// A line of its memory as the kernel counts it, for example `VmRSS`.
    pub fn memory(&self, line: &str) -> String {
        let id = self.process.as_ref().expect("it runs").id();
        let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let found = status.lines().find_map(|known| known.strip_prefix(line)?.strip_prefix(':'));
        found.expect("the kernel counts it").trim().to_owned()
    }

    /// The same as a number.
    pub fn kilobytes(&self, line: &str) -> u64 {
        let text = self.memory(line);
        let number = text.strip_suffix(" kB").and_then(|number| number.parse().ok());
        number.unwrap_or_else(|| panic!("{line} is {text}"))
    }

    /// The exit code, if it has ended by itself; it can be started again then.
    pub fn ended(&mut self) -> Option<i32> {
        let status = self.process.as_mut()?.try_wait().unwrap()?;
        self.process = None;
        Some(status.code().unwrap_or(-1))
    }

    /// SIGTERM, and waits until it has ended.
    pub async fn stop(&mut self) -> i32 {
        let mut process = self.process.take().expect("it runs");
        let id = process.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        eventually("the worker has ended", Duration::from_secs(40), || {
            let ended = process.try_wait().unwrap();
            async move { ended.ok_or_else(|| "it runs".to_owned()) }
        })
        .await
        .code()
        .unwrap()
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn log_file(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    pub async fn get(&self, path: &str) -> (u16, String) {
        super::init();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        match http.get(format!("http://127.0.0.1:{}{path}", self.listen)).send().await {
            Ok(answer) => (answer.status().as_u16(), answer.text().await.unwrap_or_default()),
            Err(error) => (0, error.to_string()),
        }
    }

    pub async fn wait_ready(&self) {
        eventually("the worker is ready", Duration::from_secs(60), || async {
            match self.get("/readyz").await {
                (200, _) => Ok(()),
                (status, body) => Err(format!("{status} {body}\n{}", tail(&self.log()))),
            }
        })
        .await;
    }

    /// Waits until the newest report says this of a condition.
    pub async fn wait_report(&self, condition: &str, words: &[&str]) -> String {
        eventually(&format!("{condition}: {words:?}"), Duration::from_secs(90), || async {
            let log = self.log();
            let last =
                log.lines().rev().find(|line| line.contains("\"message\":\"report\"")).unwrap_or_default();
            let report: Value = serde_json::from_str(last).unwrap_or_default();
            let text = report[condition].as_str().unwrap_or_default().to_owned();
            if words.iter().all(|word| text.contains(word)) {
                Ok(text)
            } else {
                Err(format!("{text}\n{}", tail(&log)))
            }
        })
        .await
    }

    /// All records that match, newest first.
    pub async fn search(&self, filter: &SearchFilter) -> Vec<StoredRecord> {
        let reader = PgReader::connect(&self.owner).await.expect("the trail can be read");
        let page = PageRequest { before_seq: None, limit: 1000 };
        reader.search(filter, page).await.expect("the trail can be searched").items
    }

    /// Records of one action (or prefix that ends in a dot).
    pub async fn of_action(&self, action: &str) -> Vec<RecordDraft> {
        let filter = SearchFilter { action: Some(action.to_owned()), ..SearchFilter::default() };
        self.search(&filter).await.into_iter().filter_map(|record| record.content).collect()
    }

    /// Waits for a record of this action that fits.
    pub async fn wait_for(&self, action: &str, fits: impl Fn(&RecordDraft) -> bool) -> RecordDraft {
        eventually(&format!("a record {action}"), Duration::from_secs(60), || async {
            let found = self.of_action(action).await;
            let count = found.len();
            found.into_iter().find(&fits).ok_or_else(|| format!("{count} others\n{}", tail(&self.log())))
        })
        .await
    }

    /// Waits for the message with exactly this text.
    pub async fn wait_text(&self, text: &str) -> RecordDraft {
        self.wait_for("message.", |record| record.text.as_deref() == Some(text)).await
    }

    /// Number of rows that a query counts in this bot's trail.
    pub fn count(&self, query: &str) -> i64 {
        sql::count(&self.database, query)
    }
}

impl Drop for LocalWorker {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.kill();
            let _ = process.wait();
        }
        if std::thread::panicking() {
            println!("---- log of the worker\n{}", tail(&self.log()));
        }
    }
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

async fn migrated(kind: &str, database: &Database) -> Endpoint {
    super::init();
    let schema = SchemaName::parse(kind).unwrap();
    let owner = Endpoint::from_url(&database.host_url.clone().into(), schema, "test").unwrap();
    let made = |password: &str| RoleSource::Generated(password.to_owned().into());
    let roles = RoleSources {
        writer: made("writer-password"),
        reader: made("reader-password"),
        inbox: made("inbox-password"),
    };
    migrate(&owner, &roles).await.expect("the database is migrated");
    owner
}
