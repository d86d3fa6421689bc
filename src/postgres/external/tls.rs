//! TLS to external servers. Certificate and name are verified, by the system's authorities or those of a file.

use leoflow_base::sys::fs::files;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_rustls::TlsConnector;

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read the certificates in {path}: {reason}")]
    Authorities { path: PathBuf, reason: String },
    #[error("cannot use the certificates of this system: {0}")]
    System(rustls::Error),
}

/// Builds a connector; a file of authorities replaces the system's.
pub fn connector(authorities: Option<&Path>) -> Result<TlsConnector, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(TlsError::System)?;
    let config = match authorities {
        None => builder.with_platform_verifier().map_err(TlsError::System)?.with_no_client_auth(),
        Some(path) => builder.with_root_certificates(roots(path)?).with_no_client_auth(),
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Reads the authorities in a file of PEM certificates.
fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let failed = |reason: String| TlsError::Authorities { path: path.to_owned(), reason };
    let text = files::read_text(path, 4 * 1024 * 1024).map_err(|error| failed(error.to_string()))?;
    let text = text.ok_or_else(|| failed("there is no such file".to_owned()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
        let added = certificate.map_err(|error| error.to_string()).map(|certificate| roots.add(certificate));
        added.and_then(|added| added.map_err(|error| error.to_string())).map_err(failed)?;
    }
    if roots.is_empty() { Err(failed("it contains no certificate".to_owned())) } else { Ok(roots) }
}

/// Converts a host name or an IP address for the check of the certificate.
pub fn server_name(host: &str) -> Result<ServerName<'static>, String> {
    ServerName::try_from(host.to_owned()).map_err(|_| format!("{host} is not a valid name for a certificate"))
}
