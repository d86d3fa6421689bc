//! One request to our own server, over a stream that is connected to it.

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::HeaderName;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::io::{AsyncRead, AsyncWrite};

/// The longest answer that is read, bytes.
const ANSWER_LIMIT: usize = 256 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error(transparent)]
    Broken(#[from] hyper::Error),
    #[error("{0}")]
    Request(#[from] hyper::http::Error),
    #[error("the answer cannot be read: {0}")]
    Answer(Box<dyn std::error::Error + Send + Sync>),
}

/// What is asked. `host` is what the server is called.
pub struct Ask<'a> {
    pub method: Method,
    pub path: &'a str,
    pub host: &'a str,
    pub headers: &'a [(HeaderName, &'a str)],
    /// JSON, or nothing.
    pub body: String,
}

/// Asks, and returns the status and the whole answer. The caller sets the time limit.
pub async fn ask<S>(stream: S, ask: Ask<'_>) -> Result<(StatusCode, Bytes), HttpError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move { drop(connection.await) });
    let mut request = Request::builder()
        .method(ask.method)
        .uri(ask.path)
        .header(header::HOST, ask.host)
        .header(header::CONTENT_TYPE, "application/json");
    for (name, value) in ask.headers {
        request = request.header(name, *value);
    }
    let response = sender.send_request(request.body(Full::new(Bytes::from(ask.body)))?).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_LIMIT).collect().await.map_err(HttpError::Answer)?;
    Ok((status, body.to_bytes()))
}

/// All but what <https://www.rfc-editor.org/rfc/rfc3986#section-2.3> leaves as it is.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A part of a path, with everything but letters, digits and `-_.~` percent-encoded.
pub fn encode(part: &str) -> String {
    utf8_percent_encode(part, UNRESERVED).to_string()
}
