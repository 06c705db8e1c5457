//! The certificate that the intake shows, which may change while it runs, and connections that are encrypted with it.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{
        ClientHello, NoClientAuth, ResolvesServerCert, WebPkiClientVerifier, danger::ClientCertVerifier,
    },
    sign::CertifiedKey,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};

const HANDSHAKE: Duration = Duration::from_secs(5);

/// Why something is no certificate that can be used. Names the part, never what is in it.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Not PEM, or empty.
    #[error("{0} is not PEM")]
    Pem(&'static str),
    /// The key does not belong to the certificate, or is of an unknown kind.
    #[error("certificate and key cannot be used")]
    Key(#[source] rustls::Error),
    /// The authority for clients cannot be used.
    #[error("the authority for client certificates cannot be used: {0}")]
    Authority(String),
    /// The process has no cryptography.
    #[error("no TLS implementation is installed")]
    NoProvider,
}

/// The certificate at this moment. Without one no connection can be made.
#[derive(Debug, Clone, Default)]
pub struct Certificate {
    current: Arc<RwLock<Option<Arc<CertifiedKey>>>>,
}

impl Certificate {
    /// Shows this one from now on.
    pub fn set(&self, chain: &[u8], key: &[u8]) -> Result<(), TlsError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(|_| TlsError::Pem("the certificate"))?;
        if chain.is_empty() {
            return Err(TlsError::Pem("the certificate"));
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| TlsError::Pem("the key"))?;
        let provider = CryptoProvider::get_default().ok_or(TlsError::NoProvider)?;
        let certified = CertifiedKey::from_der(chain, key, provider).map_err(TlsError::Key)?;
        certified.keys_match().map_err(TlsError::Key)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(certified));
        Ok(())
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Makes encrypted connections of plain ones.
#[derive(Clone)]
pub struct Acceptor {
    inner: TlsAcceptor,
}

impl Acceptor {
    /// With this certificate. Certificates of clients that one of these authorities (PEM) signed count; a client
    /// may have none.
    pub fn new(certificate: Certificate, client_authorities: Option<&[u8]>) -> Result<Self, TlsError> {
        let verifier: Arc<dyn ClientCertVerifier> = match client_authorities {
            None => Arc::new(NoClientAuth),
            Some(pem) => verifier(pem)?,
        };
        let mut config = ServerConfig::builder()
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(certificate));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { inner: TlsAcceptor::from(Arc::new(config)) })
    }

    /// The connection, and whether its client has a certificate that counts. Nothing if it does not come about
    /// in time.
    pub(super) async fn accept(&self, stream: TcpStream) -> Option<(TlsStream<TcpStream>, bool)> {
        let stream = tokio::time::timeout(HANDSHAKE, self.inner.accept(stream)).await.ok()?.ok()?;
        let has_certificate = stream.get_ref().1.peer_certificates().is_some_and(|chain| !chain.is_empty());
        Some((stream, has_certificate))
    }
}

fn verifier(pem: &[u8]) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|_| TlsError::Pem("the authority for client certificates"))?;
        roots.add(certificate).map_err(|error| TlsError::Authority(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(TlsError::Pem("the authority for client certificates"));
    }
    // Whoever has a wrong certificate is refused; whoever has none is heard, and marked.
    WebPkiClientVerifier::builder(Arc::new(roots))
        .allow_unauthenticated()
        .build()
        .map_err(|error| TlsError::Authority(error.to_string()))
}
