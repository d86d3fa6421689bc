//! Sends one HTTP request to our own server over a connected stream.

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::HeaderName;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::io::{AsyncRead, AsyncWrite};

/// Size limit of a response, bytes.
const ANSWER_LIMIT: usize = 256 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error(transparent)]
    Broken(#[from] hyper::Error),
    #[error("{0}")]
    Request(#[from] hyper::http::Error),
    #[error("failed to read the response: {0}")]
    Answer(Box<dyn std::error::Error + Send + Sync>),
}

/// A request. `host` is the value of the `Host` header.
pub struct HttpRequest<'a> {
    pub method: Method,
    pub path: &'a str,
    pub host: &'a str,
    pub headers: &'a [(HeaderName, &'a str)],
    /// JSON, or empty.
    pub body: String,
}

/// Sends a request; returns the status and the whole body. The caller sets the time limit.
pub async fn send<S>(stream: S, request_options: HttpRequest<'_>) -> Result<(StatusCode, Bytes), HttpError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move { drop(connection.await) });
    let mut request = Request::builder()
        .method(request_options.method)
        .uri(request_options.path)
        .header(header::HOST, request_options.host)
        .header(header::CONTENT_TYPE, "application/json");
    for (name, value) in request_options.headers {
        request = request.header(name, *value);
    }
    let response = sender.send_request(request.body(Full::new(Bytes::from(request_options.body)))?).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_LIMIT).collect().await.map_err(HttpError::Answer)?;
    Ok((status, body.to_bytes()))
}

/// The characters that are percent-encoded: all but the unreserved ones of
/// <https://www.rfc-editor.org/rfc/rfc3986#section-2.3>.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Percent-encodes a text, such as a path segment: everything but letters, digits and `-_.~`.
pub fn encode(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}
