//! TLS to external servers. Certificate and name are verified, by the system's authorities or those of a file.

use leoflow_base::sys::fs::files;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_rustls::TlsConnector;

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read the certificates in {path}: {source}")]
    Authorities { path: PathBuf, source: AuthoritiesError },
    #[error("cannot use the certificates of this system: {0}")]
    System(rustls::Error),
}

/// Why a file of authorities cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthoritiesError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Pem(#[from] pem::Error),
    #[error(transparent)]
    Certificate(#[from] rustls::Error),
    #[error("there is no such file")]
    Missing,
    #[error("it contains no certificate")]
    Empty,
}

/// Builds a connector; a file of authorities replaces the system's.
pub fn connector(authorities: Option<&Path>) -> Result<TlsConnector, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(TlsError::System)?;
    let config = match authorities {
        None => builder.with_platform_verifier().map_err(TlsError::System)?.with_no_client_auth(),
        Some(path) => {
            let roots = roots(path).map_err(|source| TlsError::Authorities { path: path.to_owned(), source })?;
            builder.with_root_certificates(roots).with_no_client_auth()
        }
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Reads the authorities in a file of PEM certificates.
fn roots(path: &Path) -> Result<RootCertStore, AuthoritiesError> {
    let text = files::read_text(path, 4 * 1024 * 1024)?.ok_or(AuthoritiesError::Missing)?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
        roots.add(certificate?)?;
    }
    if roots.is_empty() { Err(AuthoritiesError::Empty) } else { Ok(roots) }
}
