//! Client certificates: what proves that a report comes from the API server.

use std::time::Duration;

use axum::{Extension, Router, routing::get};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use ems_bots::{
    console::{
        certificate::make,
        listen::serve_on,
        server::HasCertificate,
        tls::{Acceptor, Certificate},
    },
    domain::{Clock as _, SystemClock},
};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", BASE64_STANDARD.encode(der))
}

/// Somebody who signs certificates of clients.
struct Authority {
    params: CertificateParams,
    key: KeyPair,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = pem("CERTIFICATE", params.self_signed(&key).unwrap().der());
        Self { params, key, pem }
    }

    fn identity(&self, usage: ExtendedKeyUsagePurpose) -> reqwest::Identity {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "somebody");
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        let signed = params.signed_by(&key, &Issuer::from_params(&self.params, &self.key)).unwrap();
        let both = [pem("CERTIFICATE", signed.der()), pem("PRIVATE KEY", &key.serialize_der())].concat();
        reqwest::Identity::from_pem(both.as_bytes()).unwrap()
    }
}

async fn says(Extension(HasCertificate(has)): Extension<HasCertificate>) -> String {
    has.to_string()
}

#[tokio::test]
async fn a_certificate_counts_if_the_authority_signed_it_for_clients_and_none_is_none() {
    let _installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let (ours, stranger) = (Authority::new("ours"), Authority::new("stranger"));
    let kept = make(&["console.test".to_owned()], SystemClock.now()).unwrap();
    let certificate = Certificate::default();
    certificate.set(kept.certificate.as_bytes(), kept.key.as_bytes()).unwrap();
    let acceptor = Acceptor::new(certificate, Some(ours.pem.as_bytes())).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/", get(says));
    let soft = CancellationToken::new();
    tokio::spawn(serve_on(listener, acceptor, router, soft.clone(), Duration::ZERO));
    let ask = async |identity: Option<reqwest::Identity>| {
        let authority = reqwest::Certificate::from_pem(kept.authorities.as_bytes()).unwrap();
        let http = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([authority])
            .resolve("console.test", address);
        let http = identity.into_iter().fold(http, reqwest::ClientBuilder::identity).build().unwrap();
        let answer = http.get(format!("https://console.test:{}/", address.port())).send().await.ok()?;
        answer.text().await.ok()
    };
    assert_eq!(ask(None).await.as_deref(), Some("false"));
    let proven = ours.identity(ExtendedKeyUsagePurpose::ClientAuth);
    assert_eq!(ask(Some(proven)).await.as_deref(), Some("true"));
    assert_eq!(ask(Some(stranger.identity(ExtendedKeyUsagePurpose::ClientAuth))).await, None);
    assert_eq!(ask(Some(ours.identity(ExtendedKeyUsagePurpose::ServerAuth))).await, None, "a server's");
    assert!(Acceptor::new(Certificate::default(), Some(b"no certificate")).is_err());
    soft.cancel();
}
