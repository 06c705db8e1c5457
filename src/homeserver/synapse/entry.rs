//! Access without a session: who one is becomes clear only here.

use std::sync::Arc;

use async_trait::async_trait;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::Method;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json;
use sha1::Sha1;

use super::http::{Call, Http};
use crate::{
    domain::{DeviceId, Localpart, ServerName, UserId},
    homeserver::{Entry, HomeserverError, LoginFlow, Result, Session},
};

pub(super) struct SynapseEntry {
    pub http: Arc<Http>,
}

#[derive(Deserialize)]
struct SessionAnswer {
    user_id: UserId,
    device_id: Option<DeviceId>,
    access_token: String,
}

impl From<SessionAnswer> for Session {
    fn from(answer: SessionAnswer) -> Self {
        Self {
            user_id: answer.user_id,
            device_id: answer.device_id,
            access_token: answer.access_token.into(),
        }
    }
}

#[async_trait]
impl Entry for SynapseEntry {
    async fn server_name(&self) -> Result<Option<ServerName>> {
        #[derive(Deserialize)]
        struct Keys {
            server_name: ServerName,
        }
        let call = Call::new(Method::GET, "its server name", "_matrix/key/v2/server", &[]);
        match self.http.send(call).await {
            Ok(answer) => Ok(Some(answer.parse::<Keys>()?.server_name)),
            // A listener without the federation or keys resource does not say it.
            Err(HomeserverError::NotOffered { .. } | HomeserverError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn versions(&self) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Versions {
            versions: Vec<String>,
        }
        let call = Call::new(Method::GET, "its versions", "_matrix/client/versions", &[]);
        Ok(self.http.send(call).await?.parse::<Versions>()?.versions)
    }

    async fn login_flows(&self) -> Result<Vec<LoginFlow>> {
        #[derive(Deserialize)]
        struct Flow {
            r#type: String,
            #[serde(default)]
            get_login_token: bool,
        }
        #[derive(Deserialize)]
        struct Flows {
            flows: Vec<Flow>,
        }
        let call = Call::new(Method::GET, "its login types", "_matrix/client/v3/login", &[]);
        let flows = self.http.send(call).await?.parse::<Flows>()?.flows;
        let flow = |flow: Flow| LoginFlow { kind: flow.r#type, get_login_token: flow.get_login_token };
        Ok(flows.into_iter().map(flow).collect())
    }

    async fn register_admin(
        &self,
        secret: &SecretString,
        localpart: &Localpart,
        password: &SecretString,
    ) -> Result<Session> {
        #[derive(Deserialize)]
        struct Nonce {
            nonce: String,
        }
        const WHAT: &str = "registration with the shared secret";
        let call = |method| Call::new(method, WHAT, "_synapse/admin/v1/register", &[]);
        let Nonce { nonce } = match self.http.send(call(Method::GET)).await {
            // Synapse's words when no secret is configured: "Shared secret registration is not enabled".
            Err(HomeserverError::Refused { status: 400, .. }) => {
                return Err(HomeserverError::NotOffered { what: WHAT });
            }
            other => other?.parse()?,
        };
        let mac = registration_mac(secret, &nonce, localpart, password);
        let body = json!({
            "nonce": nonce,
            "username": localpart,
            "password": password.expose_secret(),
            "admin": true,
            "mac": mac,
        });
        let request = call(Method::POST).about(localpart.as_str()).hiding(password).hiding(secret).body(body);
        match self.http.send(request).await {
            Err(HomeserverError::Refused { status: 403, message, .. }) if message.contains("HMAC") => {
                Err(HomeserverError::SharedSecretRefused)
            }
            other => Ok(other?.parse::<SessionAnswer>()?.into()),
        }
    }

    async fn login(
        &self,
        localpart: &Localpart,
        password: &SecretString,
        device: &DeviceId,
    ) -> Result<Session> {
        let body = json!({
            "type": "m.login.password",
            "identifier": { "type": "m.id.user", "user": localpart },
            "password": password.expose_secret(),
            "device_id": device,
            "initial_device_display_name": "ems-bots",
        });
        let call = Call::new(Method::POST, "login", "_matrix/client/v3/login", &[])
            .about(localpart.as_str())
            .hiding(password)
            .body(body);
        match self.http.send(call).await {
            Err(HomeserverError::Refused { status, errcode, message, .. }) => {
                Err(login_refused(localpart, status, errcode, message))
            }
            other => Ok(other?.parse::<SessionAnswer>()?.into()),
        }
    }

    async fn whoami(&self, token: &SecretString) -> Result<UserId> {
        #[derive(Deserialize)]
        struct Whoami {
            user_id: UserId,
        }
        let call = Call::new(Method::GET, "whoami", "_matrix/client/v3/account/whoami", &[])
            .about("the owner of the token")
            .token(token);
        Ok(self.http.send(call).await?.parse::<Whoami>()?.user_id)
    }
}

fn login_refused(localpart: &Localpart, status: u16, errcode: String, message: String) -> HomeserverError {
    match (status, errcode.as_str()) {
        (400, _)
            if message.contains("Password login has been disabled")
                || message.contains("Unknown login type") =>
        {
            HomeserverError::PasswordLoginDisabled
        }
        (403, "M_FORBIDDEN" | "M_USER_DEACTIVATED") => {
            HomeserverError::PasswordRefused { user: localpart.to_string() }
        }
        _ => HomeserverError::Refused { what: "login", status, errcode, message },
    }
}

/// `HMAC-SHA1(secret, nonce \0 user \0 password \0 "admin")` in hexadecimal, as Synapse's
/// registration asks for it.
fn registration_mac(
    secret: &SecretString,
    nonce: &str,
    localpart: &Localpart,
    password: &SecretString,
) -> String {
    let key = secret.expose_secret().as_bytes();
    let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(key) else {
        // HMAC takes keys of every length; an empty answer would merely be refused.
        return String::new();
    };
    for part in [nonce, localpart.as_str(), password.expose_secret()] {
        mac.update(part.as_bytes());
        mac.update(b"\0");
    }
    mac.update(b"admin");
    hex::encode(mac.finalize().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registration_mac_is_the_documented_one() {
        // printf 'abc\0bot\0pw\0admin' | openssl dgst -sha1 -hmac topsecret
        let mac = registration_mac(
            &"topsecret".into(),
            "abc",
            &Localpart::parse("bot").unwrap(),
            &SecretString::from("pw"),
        );
        assert_eq!(mac, "9aa3e43cabfcec2047f4151f1ecac5802048ccd4");
    }
}
