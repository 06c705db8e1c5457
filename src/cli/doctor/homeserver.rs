//! The homeserver: is it there, is it the right one, does it accept the credential.

use secrecy::SecretString;

use super::report::Report;
use crate::{
    domain::{Localpart, ServerName},
    homeserver::{Connect, Entry, HomeserverError, Session},
};

const AREA: &str = "homeserver";

/// The credential of the admin API.
#[derive(Debug, Clone)]
pub(super) enum Credential {
    /// A server admin's access token.
    AccessToken(SecretString),
    /// Synapse's registration shared secret.
    SharedSecret(SecretString),
}

/// Looks at everything that can be asked without changing anything.
pub(super) async fn check(
    report: &mut Report,
    connect: &dyn Connect,
    server_name: Option<&ServerName>,
    credential: Option<&Credential>,
) {
    let entry = connect.entry();
    match entry.versions().await {
        Ok(versions) => {
            let newest = versions.last().map_or("none", String::as_str);
            report.ok(AREA, "reachable", format!("answers and speaks versions up to {newest}"));
        }
        Err(error) => {
            report.fail(AREA, "reachable", error.to_string(), UNREACHABLE);
            return;
        }
    }
    check_name(report, &*entry, server_name).await;
    check_logins(report, &*entry).await;
    match credential {
        Some(Credential::AccessToken(token)) => check_token(report, connect, token, server_name).await,
        Some(Credential::SharedSecret(secret)) => check_secret(report, &*entry, secret).await,
        None => report.warn(
            AREA,
            "credential",
            "no credential was given, so the admin API was not tried",
            "give --access-token-file or --registration-secret-file, or --bot to take it from the cluster",
        ),
    }
}

const UNREACHABLE: &str = "check address, port, certificate and network policies; a name that only \
                           resolves inside the cluster needs doctor to run there";

async fn check_name(report: &mut Report, entry: &dyn Entry, expected: Option<&ServerName>) {
    let fix = "set spec.homeserver.serverName to the part after the colon of its users' IDs, or \
               spec.homeserver.url to the right homeserver";
    match (entry.server_name().await, expected) {
        (Ok(Some(found)), Some(expected)) if found != *expected => {
            report.fail(AREA, "server name", format!("calls itself {found}, not {expected}"), fix);
        }
        (Ok(Some(found)), _) => report.ok(AREA, "server name", format!("calls itself {found}")),
        // The bots compare the name with their own account's, too.
        (Ok(None), _) => report.ok(AREA, "server name", "is not told without a credential"),
        (Err(error), _) => report.warn(AREA, "server name", error.to_string(), UNREACHABLE),
    }
}

async fn check_logins(report: &mut Report, entry: &dyn Entry) {
    let flows = match entry.login_flows().await {
        Ok(flows) => flows,
        Err(HomeserverError::NotOffered { .. }) => {
            report.fail(
                AREA,
                "login",
                "offers no login: an authentication service does it",
                "homeservers with Matrix Authentication Service are not supported yet",
            );
            return;
        }
        Err(error) => {
            report.warn(AREA, "login", error.to_string(), UNREACHABLE);
            return;
        }
    };
    let has = |kind: &str| flows.iter().any(|flow| flow.kind == kind);
    if has("m.login.password") {
        report.ok(AREA, "login", "password login is on");
    } else {
        report.fail(
            AREA,
            "login",
            "password login is off, and a bot has no other way to get its device",
            "set password_config.enabled in Synapse; localdb_enabled may stay off for people",
        );
    }
    if flows.iter().any(|flow| flow.kind == "m.login.token" && flow.get_login_token) {
        report.ok(AREA, "login via existing session", "is on");
    } else {
        report.warn(
            AREA,
            "login via existing session",
            "is off: people log in to the bot with its password, not with a click",
            "set login_via_existing_session.enabled in Synapse if they should",
        );
    }
}

async fn check_token(
    report: &mut Report,
    connect: &dyn Connect,
    token: &SecretString,
    server_name: Option<&ServerName>,
) {
    let user_id = match connect.entry().whoami(token).await {
        Ok(user_id) => user_id,
        Err(error) => {
            report.fail(AREA, "credential", error.to_string(), advice(&error));
            return;
        }
    };
    if let Some(expected) = server_name.filter(|name| !user_id.is_local_to(name)) {
        let message = format!("the access token is {user_id}'s, who is not on {expected}");
        report.fail(AREA, "credential", message, "put a token of this homeserver into the Secret");
        return;
    }
    let session = Session { user_id: user_id.clone(), device_id: None, access_token: token.clone() };
    match connect.admin(session).server_version().await {
        Ok(version) => {
            report.ok(AREA, "credential", format!("the access token is {user_id}'s, a server admin's"));
            report.ok(AREA, "admin API", format!("is reachable; Synapse {version}"));
        }
        Err(error) => report.fail(AREA, "credential", error.to_string(), advice(&error)),
    }
}

/// Tries the secret on a name that Synapse refuses after it has checked the secret, so that no
/// account is made.
async fn check_secret(report: &mut Report, entry: &dyn Entry, secret: &SecretString) {
    let Ok(impossible) = Localpart::parse("_ems-bots-doctor") else { return };
    match entry.register_admin(secret, &impossible, &SecretString::from("unused")).await {
        Err(HomeserverError::Refused { errcode, .. }) if errcode == "M_INVALID_USERNAME" => {
            report.ok(AREA, "credential", "the registration shared secret is accepted");
            report.ok(AREA, "admin API", "is reachable");
        }
        Ok(session) => report.warn(
            AREA,
            "credential",
            format!(
                "the registration shared secret is accepted, and an account {} was made",
                session.user_id
            ),
            "deactivate that account; this homeserver does not refuse names that begin with _",
        ),
        Err(error) => report.fail(AREA, "credential", error.to_string(), advice(&error)),
    }
}

/// How to mend what an error says.
fn advice(error: &HomeserverError) -> &'static str {
    match error {
        HomeserverError::Unreachable { .. } => UNREACHABLE,
        HomeserverError::Server { .. } => "look at the logs of the homeserver and of the proxy before it",
        HomeserverError::RateLimited { .. } => "wait, then try again; the bots wait by themselves",
        HomeserverError::CredentialRefused { .. } => {
            "put a valid access token of a server admin into the Secret; a logout ends one"
        }
        HomeserverError::NotAdmin => "use the token of a server admin, or make its owner one",
        HomeserverError::SharedSecretRefused => {
            "put the value of registration_shared_secret of Synapse into the Secret"
        }
        HomeserverError::PasswordLoginDisabled | HomeserverError::PasswordRefused { .. } => {
            "check password_config of Synapse and the password"
        }
        HomeserverError::Locked { .. } => "unlock the account through the admin API",
        HomeserverError::UserInUse { .. } => "choose another user name",
        HomeserverError::NotOffered { .. } => {
            "let spec.homeserver.url be an address at which /_synapse/admin is not blocked, and set \
             registration_shared_secret in Synapse if that is the credential"
        }
        HomeserverError::NotFound { .. } | HomeserverError::Refused { .. } => {
            "look at the logs of the homeserver"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cli::doctor::report::Level, homeserver::mock::MockHomeserver};

    fn server() -> MockHomeserver {
        MockHomeserver::new(ServerName::parse("here.org").unwrap())
    }

    async fn levels(
        server: &MockHomeserver,
        name: &str,
        credential: Option<Credential>,
    ) -> Vec<(&'static str, Level)> {
        let mut report = Report::default();
        let name = ServerName::parse(name).unwrap();
        check(&mut report, server, Some(&name), credential.as_ref()).await;
        let fixed = |level, fix: &Option<String>| (level == Level::Ok) == fix.is_none();
        assert!(report.findings.iter().all(|finding| fixed(finding.level, &finding.fix)));
        report.findings.into_iter().map(|finding| (finding.check, finding.level)).collect()
    }

    fn secret(text: &str) -> Option<Credential> {
        Some(Credential::SharedSecret(SecretString::from(text)))
    }

    #[tokio::test]
    async fn a_good_homeserver_is_good_and_no_account_is_made() {
        let server = server();
        let found = levels(&server, "here.org", secret("registration-secret")).await;
        let credential = found.iter().find(|(check, _)| *check == "credential");
        assert_eq!(credential, Some(&("credential", Level::Ok)));
        assert!(found.iter().all(|(_, level)| *level != Level::Failed), "{found:?}");
        assert!(server.world().users.is_empty());
    }

    #[tokio::test]
    async fn each_fault_is_found() {
        let server = server();
        let failed = |found: Vec<(&'static str, Level)>| -> Vec<&'static str> {
            found.into_iter().filter(|(_, level)| *level == Level::Failed).map(|(check, _)| check).collect()
        };
        assert_eq!(failed(levels(&server, "there.org", None).await), ["server name"]);
        assert_eq!(failed(levels(&server, "here.org", secret("wrong")).await), ["credential"]);
        let alice = server.add_user(&Localpart::parse("alice").unwrap(), false);
        let token = |session: &Session| Some(Credential::AccessToken(session.access_token.clone()));
        assert_eq!(failed(levels(&server, "here.org", token(&alice)).await), ["credential"]);
        let admin = server.add_user(&Localpart::parse("admin").unwrap(), true);
        assert!(failed(levels(&server, "here.org", token(&admin)).await).is_empty());
        server.world().admin_api = false;
        assert_eq!(failed(levels(&server, "here.org", token(&admin)).await), ["credential"]);
        server.world().password_login = false;
        assert_eq!(failed(levels(&server, "here.org", None).await), ["login"]);
        server.fail_always("versions", || HomeserverError::Server { status: 502, what: "its versions" });
        assert_eq!(failed(levels(&server, "here.org", None).await), ["reachable"]);
    }
}
