//! Environments that tries run in. The server builds them; a try waits until its environment is built.

use hyper::Method;
use leoflow_base::home::Home;
use leoflow_base::protocol::http::{self, HttpRequest};
use leoflow_base::sys::net::unix_socket;
use leoflow_engine::model::keys::TryKey;
use leoflow_engine::store::instance::claimed::Claimed;
use leoflow_engine::store::instance::tries;
use leoflow_python::Interpreter;
use leoflow_python::environments;
use serde::Deserialize;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;
use tokio::task::JoinSet;

/// Pause between requests to a server that is down or being replaced.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

pub struct Environments {
    home: Home,
    /// Pythons of built environments, by hash.
    interpreters: HashMap<String, Rc<Interpreter>>,
    /// Tries that wait for an environment.
    waiting: HashMap<TryKey, Claimed>,
    requests: JoinSet<(TryKey, Option<String>)>,
}

/// The server's answer to a request for an environment.
#[derive(Deserialize)]
struct Answer {
    /// Why the environment cannot be built, as a text for users.
    problem: Option<String>,
}

impl Environments {
    pub fn new(home: &Home) -> Self {
        Self { home: home.clone(), interpreters: HashMap::new(), waiting: HashMap::new(), requests: JoinSet::new() }
    }

    /// Returns the Python of the environment with this hash, if it is built. `plain` is the Python outside of
    /// environments.
    pub fn find(&mut self, plain: &Interpreter, hash: &str) -> Option<Rc<Interpreter>> {
        if let Some(cached) = self.interpreters.get(hash).filter(|cached| cached.program.is_file()) {
            return Some(cached.clone());
        }
        let folder = environments::find(&self.home, hash)?;
        environments::record_use(&folder);
        let interpreter = Rc::new(plain.in_environment(&folder));
        self.interpreters.insert(hash.to_owned(), interpreter.clone());
        Some(interpreter)
    }

    /// Requests the environment from the server; `next` returns the try once it is built or cannot be built.
    pub fn wait_for(&mut self, claimed: &Claimed, hash: String) {
        let home = self.home.clone();
        self.enqueue(claimed, async move {
            loop {
                match request_build(&home, &hash).await {
                    Some(answer) => return answer.problem,
                    None => tokio::time::sleep(RETRY_PAUSE).await,
                }
            }
        });
    }

    /// Returns the Python of the environment with this hash, or the plain one without a hash. If the environment is
    /// missing, requests it from the server and returns `None`: the caller calls again later.
    pub fn find_or_request(&mut self, plain: &Rc<Interpreter>, hash: Option<&str>) -> Option<Rc<Interpreter>> {
        let Some(hash) = hash else { return Some(plain.clone()) };
        let interpreter = self.find(plain, hash);
        if interpreter.is_none() {
            let (home, hash) = (self.home.clone(), hash.to_owned());
            tokio::task::spawn_local(async move { drop(request_build(&home, &hash).await) });
        }
        interpreter
    }

    fn enqueue(&mut self, claimed: &Claimed, problem: impl Future<Output = Option<String>> + 'static) {
        let key = claimed.key.clone();
        self.waiting.insert(key.clone(), claimed.clone());
        self.requests.spawn_local(async move { (key, problem.await) });
    }

    /// Returns the next try whose environment is ready, or why it cannot be built. `None` when no try waits.
    pub async fn next(&mut self) -> Option<(Claimed, Option<String>)> {
        loop {
            // A request that panicked has no answer.
            let Ok((key, problem)) = self.requests.join_next().await? else { continue };
            if let Some(claimed) = self.waiting.remove(&key) {
                return Some((claimed, problem));
            }
        }
    }

    pub fn is_waiting(&self, key: &TryKey) -> bool {
        self.waiting.contains_key(key)
    }

    /// Number of slots that waiting tries take: only those beyond `tries::SLOTS`.
    pub fn slots_taken(&self) -> usize {
        self.waiting.len().saturating_sub(tries::SLOTS)
    }

    /// Drops a try that must not run any more. Returns whether it was waiting.
    pub fn cancel_waiting(&mut self, key: &TryKey) -> bool {
        self.waiting.remove(key).is_some()
    }
}

/// Requests an environment from the server. `None` without an answer.
async fn request_build(home: &Home, hash: &str) -> Option<Answer> {
    let stream = unix_socket::connect(&home.api_socket()).ok()?;
    stream.set_nonblocking(true).ok()?;
    let stream = tokio::net::UnixStream::from_std(stream).ok()?;
    let path = format!("/local/environments/{}", http::encode(hash));
    let request =
        HttpRequest { method: Method::POST, path: &path, host: "localhost", headers: &[], body: String::new() };
    let (status, body) = http::send(stream, request).await.ok()?;
    status.is_success().then(|| serde_json::from_slice(&body).ok()).flatten()
}
