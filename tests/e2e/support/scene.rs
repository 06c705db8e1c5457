//! What most tests begin with: a homeserver, a database, a tenant and people who can talk.

use serde_json::{Value, json};

use super::{Client, Database, Synapse, Tenant, Trail, unique};

/// See the module. Call [`Scene::end`] when a test has passed; what a failed test leaves behind is for you to
/// look at.
pub struct Scene {
    pub synapse: Synapse,
    pub database: Database,
    pub tenant: Tenant,
    pub client: Client,
}

impl Scene {
    /// With these people signed in; homeserver, database and namespace get a name that begins with `prefix`.
    pub async fn set(prefix: &str, people: &[&str]) -> Self {
        Self::set_with(prefix, people, &[], None).await
    }

    /// As [`Scene::set`], with options for [`Synapse::up_with`].
    pub async fn set_with(prefix: &str, people: &[&str], options: &[&str], extra: Option<&str>) -> Self {
        let name = unique(prefix);
        println!("== {name}: homeserver, database, namespace, {people:?}");
        let synapse = Synapse::up_with(&name, options, extra);
        let database = Database::tenant(&name);
        let tenant = Tenant::create(&name, true).await;
        tenant.give_secrets(&synapse, &database).await;
        let mut client = Client::start();
        for person in people {
            let person = synapse.register(person);
            client.login(&synapse, &person);
        }
        Self { synapse, database, tenant, client }
    }

    /// Makes bots with these names and waits until they are Ready.
    pub async fn bots(&self, bots: &[(&str, &str, Value)]) {
        for (kind, name, spec) in bots {
            self.tenant.bot(kind, name, &self.synapse, spec.clone()).await;
        }
        for (kind, name, _) in bots {
            self.tenant.wait_ready(kind, name).await;
        }
        println!("-- Ready: {:?}", bots.iter().map(|(_, name, _)| *name).collect::<Vec<_>>());
    }

    /// The default Audit Bot.
    pub async fn audit_bot(&self) {
        self.bots(&[("AuditBot", "auditbot", json!({}))]).await;
    }

    /// The trail of a bot with the default schema.
    pub async fn trail(&self, name: &str) -> Trail {
        Trail::of(&self.tenant, &self.database, name, name).await
    }

    pub fn user_id(&self, localpart: &str) -> String {
        self.synapse.user_id(localpart)
    }

    /// A room of this person that these others joined, and that these bots are joined to as admins.
    pub fn room(&mut self, owner: &str, others: &[&str], bots: &[&str], mut options: Value) -> String {
        let invited: Vec<String> = others.iter().map(|user| self.user_id(user)).collect();
        options["invite"] = json!(invited);
        let room = self.client.create_room(owner, options);
        for user in others {
            self.client.call("join", json!({"user": user, "room": room}));
        }
        for bot in bots {
            let bot = self.user_id(bot);
            self.client.wait_for_member(owner, &room, &bot, "join");
        }
        room
    }

    /// Waits until a bot is joined with power 100.
    pub async fn wait_admin(&self, room: &str, bot: &str) {
        let bot = self.user_id(bot);
        super::eventually(
            &format!("{bot} as admin of {room}"),
            std::time::Duration::from_mins(1),
            || async {
                let standing = self.synapse.standing(room, &bot).await;
                if standing == ("join".to_owned(), 100) { Ok(()) } else { Err(format!("{standing:?}")) }
            },
        )
        .await;
    }

    /// An account as the homeserver's admin API shows it.
    pub async fn account(&self, user: &str) -> Option<Value> {
        account(&self.synapse, user).await
    }

    pub async fn end(self) {
        drop(self.client);
        self.tenant.remove().await;
    }
}

/// An account as the homeserver's admin API shows it; `user` is a full user id.
pub async fn account(synapse: &Synapse, user: &str) -> Option<Value> {
    let path = format!("/_synapse/admin/v2/users/{}", super::services::urlencode(user));
    let (status, answer) = synapse.admin("GET", &path, None).await;
    (status == 200).then_some(answer)
}

/// Device ids of an account.
pub async fn devices(synapse: &Synapse, user: &str) -> Vec<String> {
    let path = format!("/_synapse/admin/v2/users/{}/devices", super::services::urlencode(user));
    let (_, answer) = synapse.admin("GET", &path, None).await;
    let all = answer["devices"].as_array().cloned().unwrap_or_default();
    all.iter().map(|device| device["device_id"].as_str().unwrap().to_owned()).collect()
}

/// The newest events of a room as the homeserver has them, newest first.
pub async fn history(synapse: &Synapse, room: &str) -> Vec<Value> {
    let path =
        format!("/_synapse/admin/v1/rooms/{}/messages?dir=b&limit=200", super::services::urlencode(room));
    let (_, answer) = synapse.admin("GET", &path, None).await;
    answer["chunk"].as_array().cloned().unwrap_or_default()
}
