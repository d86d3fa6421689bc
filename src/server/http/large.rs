//! Handles large requests on threads of their own: parsing, encrypting and masking a value of megabytes must not hold up
//! the event loop, which also answers health checks and schedules tasks.

use super::api_error::ApiError;
use super::body::with_body_read;
use super::guard::{DATASTORE_TIMEOUT, limit_for};
use axum::extract::Request;
use axum::http::{Method, header};
use axum::middleware::Next;
use axum::response::Response;
use leoflow_base::sys::blocking;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinError;
use tokio::time::{Instant, timeout, timeout_at};

/// Bodies of at least this many bytes are large.
const LARGE_BODY: u64 = 256 * 1024;
/// Parts of paths whose answers contain stored values or logs, which may be large.
const LARGE_ANSWERS: [&str; 4] = ["/xcomEntries", "/variables", "/connections", "/logs/"];
/// Limits the large requests that are handled at the same time; others wait.
static THREADS: Semaphore = Semaphore::const_new(4);

/// Handles large requests on a thread. Answers 503 when no thread becomes free in time, or when the handler takes too
/// long.
pub async fn off_the_event_loop(request: Request, next: Next) -> Result<Response, ApiError> {
    let limit = limit_for(&request, DATASTORE_TIMEOUT);
    if is_large(&request) { on_a_thread(request, next, limit).await } else { Ok(next.run(request).await) }
}

async fn on_a_thread(request: Request, next: Next, limit: Duration) -> Result<Response, ApiError> {
    // The semaphore is never closed.
    let permit = timeout(limit, THREADS.acquire()).await.map_err(|_| ApiError::busy())?;
    // Read under the permit, which limits the memory of large bodies.
    let request = with_body_read(request).await?;
    let deadline = Instant::now() + limit;
    let handle = Handle::current();
    let work = move || {
        // The thread holds the permit, because its work continues when the client disconnects.
        let _permit = permit;
        let response = handle.block_on(async { timeout_at(deadline, next.run(request)).await });
        response.map_err(|elapsed| ApiError::unavailable(&elapsed))
    };
    blocking::run(work).await?
}

/// Runs `work` for a large answer that is being sent on one of these threads, as soon as one is free.
pub async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
    // Cannot fail: the semaphore is never closed.
    let permit = THREADS.acquire().await;
    let work = move || {
        let _permit = permit;
        work()
    };
    blocking::run(work).await
}

/// True when the body is large or of unknown size, or the answer of a read may be large. Reads by tasks count as small:
/// many tasks that read a Variable at once must not wait for each other, nor for users of the UI.
fn is_large(request: &Request) -> bool {
    if [Method::GET, Method::HEAD].contains(request.method()) {
        let path = request.uri().path();
        return !path.starts_with("/task/") && LARGE_ANSWERS.iter().any(|part| path.contains(part));
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
    use axum::Router;
    use axum::body::{Body, Bytes};
    use axum::extract::DefaultBodyLimit;
    use axum::http::StatusCode;
    use axum::middleware::from_fn;
    use axum::routing::{get, post};
    use futures_util::stream;
    use hyper::service::Service;
    use hyper_util::service::TowerToHyperService;
    use std::convert::Infallible;
    use std::sync::{Arc, Mutex, mpsc};

    fn request(method: &str, path: &str, length: usize) -> Request {
        let builder = Request::builder().method(method).uri(path).header(header::CONTENT_LENGTH, length);
        builder.body(Body::from(vec![b'x'; length])).unwrap()
    }

    #[tokio::test]
    async fn a_large_request_does_not_hold_up_others() {
        let (release, released) = mpsc::channel();
        let released = Arc::new(Mutex::new(released));
        // Blocks its thread until the small request is complete.
        let busy = async move || match released.lock().unwrap().recv_timeout(Duration::from_secs(20)) {
            Ok(()) => StatusCode::OK,
            Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let router = Router::new()
            .route("/api/v2/variables/{key}", get(busy.clone()).put(busy))
            .route("/api/v2/dags", post(async || "ok"))
            .layer(from_fn(off_the_event_loop))
            .layer(DefaultBodyLimit::disable());
        let service = TowerToHyperService::new(router);
        for (method, length) in [("PUT", 9_000_000), ("GET", 0)] {
            let large = tokio::spawn(service.call(request(method, "/api/v2/variables/a", length)));
            tokio::task::yield_now().await;
            let small = service.call(request("POST", "/api/v2/dags", 1)).await.unwrap();
            assert_eq!(small.status(), StatusCode::OK);
            release.send(()).unwrap();
            assert_eq!(large.await.unwrap().unwrap().status(), StatusCode::OK, "{method}");
        }
    }

    #[tokio::test]
    async fn a_frozen_datastore_ends_the_work_and_the_wait_for_a_thread() {
        let limit = Duration::from_millis(50);
        let router = Router::new()
            .route("/", get(async || std::future::pending::<()>().await))
            .layer(from_fn(move |request, next| on_a_thread(request, next, limit)));
        let service = TowerToHyperService::new(router);
        let answer = async || service.call(request("GET", "/", 0)).await.unwrap().status();
        assert_eq!(answer().await, StatusCode::SERVICE_UNAVAILABLE);
        let _all = THREADS.acquire_many(4).await.unwrap();
        assert_eq!(answer().await, StatusCode::SERVICE_UNAVAILABLE);
    }

    #[tokio::test]
    async fn the_limit_does_not_include_the_upload() {
        let limit = Duration::from_millis(20);
        let router = Router::new()
            .route("/", post(async |body: Bytes| body))
            .layer(from_fn(move |request, next| on_a_thread(request, next, limit)));
        let upload = stream::once(async move {
            tokio::time::sleep(limit * 5).await;
            Ok::<_, Infallible>("content")
        });
        let request = Request::builder().method("POST").uri("/").body(Body::from_stream(upload)).unwrap();
        let response = TowerToHyperService::new(router).call(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    }

    #[test]
    fn reads_by_tasks_count_as_small() {
        assert!(is_large(&request("GET", "/api/v2/variables/a", 0)));
        assert!(!is_large(&request("GET", "/task/variables/a", 0)));
        assert!(is_large(&request("PUT", "/task/variables/a", 9_000_000)));
    }
}
