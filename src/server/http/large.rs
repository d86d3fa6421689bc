//! Handles large requests on threads of their own: parsing, encrypting and masking a value of megabytes must not hold up
//! the event loop, which also answers health checks and schedules tasks.

use super::api_error::ApiError;
use axum::extract::Request;
use axum::http::{Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use leoflow_base::sys::blocking;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

/// Bodies of at least this many bytes are large.
const LARGE_BODY: u64 = 256 * 1024;
/// Parts of paths whose answers contain stored values or logs, which may be large.
const LARGE_ANSWERS: [&str; 4] = ["/xcomEntries", "/variables", "/connections", "/logs/"];
/// Large requests that are handled at the same time; others wait.
static THREADS: Semaphore = Semaphore::const_new(4);

pub async fn off_the_event_loop(request: Request, next: Next) -> Response {
    if !is_large(&request) {
        return next.run(request).await;
    }
    // Cannot fail: the semaphore is never closed.
    let _permit = THREADS.acquire().await;
    let handle = Handle::current();
    let response = blocking::run(move || handle.block_on(next.run(request))).await;
    response.unwrap_or_else(|error| ApiError::internal(&error).into_response())
}

/// True when the body is large or of unknown size, or the answer may be large.
fn is_large(request: &Request) -> bool {
    if [Method::GET, Method::HEAD].contains(request.method()) {
        return LARGE_ANSWERS.iter().any(|part| request.uri().path().contains(part));
    }
    let length = request.headers().get(header::CONTENT_LENGTH);
    match length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok()) {
        Some(length) => length >= LARGE_BODY,
        None => request.headers().contains_key(header::TRANSFER_ENCODING),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::middleware::from_fn;
    use axum::routing::{get, post};
    use axum::{Router, http::StatusCode};
    use hyper::service::Service;
    use hyper_util::service::TowerToHyperService;
    use std::time::{Duration, Instant};

    #[tokio::test]
    async fn a_large_request_does_not_hold_up_others() {
        let busy = async || std::thread::sleep(Duration::from_millis(300));
        let router = Router::new()
            .route("/api/v2/variables/{key}", get(busy).put(busy))
            .route("/api/v2/dags", post(async || "ok"))
            .layer(from_fn(off_the_event_loop));
        let service = TowerToHyperService::new(router);
        let request = |method: &str, path: &str, length: usize| {
            let builder = Request::builder().method(method).uri(path).header(header::CONTENT_LENGTH, length);
            builder.body(Body::from(vec![b'x'; length])).unwrap()
        };
        for (method, length) in [("PUT", 9_000_000), ("GET", 0)] {
            let started_at = Instant::now();
            let large = tokio::spawn(service.call(request(method, "/api/v2/variables/a", length)));
            tokio::task::yield_now().await;
            let small = service.call(request("POST", "/api/v2/dags", 1)).await.unwrap();
            assert_eq!(small.status(), StatusCode::OK);
            assert!(started_at.elapsed() < Duration::from_millis(250), "{method}: {:?}", started_at.elapsed());
            assert_eq!(large.await.unwrap().unwrap().status(), StatusCode::OK);
        }
    }
}
