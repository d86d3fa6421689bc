//! The environments that tries run in. The server builds them; a try whose environment is not there waits until it is.

use crate::engine::keys::TryKey;
use crate::engine::store::tries::{self, Claimed};
use crate::home::Home;
use crate::protocol::http::{self, Ask};
use crate::python::environments;
use crate::python::{Interpreter, Warm};
use crate::sys::unix_socket;
use hyper::Method;
use serde::Deserialize;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;
use tokio::task::JoinSet;

/// Between questions to a server that is away, or is being replaced.
const AGAIN: Duration = Duration::from_secs(1);

pub struct Environments {
    home: Home,
    known: HashMap<String, Rc<Interpreter>>,
    waiting: HashMap<TryKey, Claimed>,
    asking: JoinSet<(TryKey, Result<(), String>)>,
}

/// What the server says of one that was asked for.
#[derive(Deserialize)]
struct Answer {
    /// Why it is not to be had; for people.
    problem: Option<String>,
}

impl Environments {
    pub fn new(home: &Home) -> Self {
        Self { home: home.clone(), known: HashMap::new(), waiting: HashMap::new(), asking: JoinSet::new() }
    }

    /// The Python of the environment with this hash, if it is there.
    pub fn find(&mut self, plain: &Interpreter, hash: &str) -> Option<Rc<Interpreter>> {
        if let Some(known) = self.known.get(hash).filter(|known| known.program.is_file()) {
            return Some(known.clone());
        }
        let folder = environments::find(&self.home, hash)?;
        environments::note_use(&folder);
        let found = Rc::new(plain.in_environment(&folder));
        self.known.insert(hash.to_owned(), found.clone());
        Some(found)
    }

    /// Has the server build it; `next` gives the try back.
    pub fn wait_for(&mut self, claimed: &Claimed, hash: String) {
        let home = self.home.clone();
        self.wait_until(claimed, async move {
            loop {
                match ask(&home, &hash).await {
                    Some(answer) => return answer.problem.map_or(Ok(()), Err),
                    None => tokio::time::sleep(AGAIN).await,
                }
            }
        });
    }

    /// Whether the try begins only once there is a warm Python, which takes seconds with Airflow's own SDK; `next` gives
    /// it back then.
    pub fn wait_for_warm(&mut self, claimed: &Claimed, warm: &mut Warm, interpreter: &Interpreter) -> bool {
        // Once: should it be gone again by then, it has a Python of its own.
        if claimed.has_waited {
            return false;
        }
        let Some(ready) = warm.worth_waiting_for(interpreter) else { return false };
        let claimed = Claimed { has_waited: true, ..claimed.clone() };
        self.wait_until(&claimed, async move {
            ready.await;
            Ok(())
        });
        true
    }

    /// The environment with this hash, and for none the plain one. What is not there is built, for whoever looks again.
    pub fn find_or_have_built(&mut self, plain: &Rc<Interpreter>, hash: Option<&str>) -> Option<Rc<Interpreter>> {
        let Some(hash) = hash else { return Some(plain.clone()) };
        let found = self.find(plain, hash);
        if found.is_none() {
            let (home, hash) = (self.home.clone(), hash.to_owned());
            tokio::task::spawn_local(async move { drop(ask(&home, &hash).await) });
        }
        found
    }

    fn wait_until(&mut self, claimed: &Claimed, there: impl Future<Output = Result<(), String>> + 'static) {
        let key = claimed.key.clone();
        self.waiting.insert(key.clone(), claimed.clone());
        self.asking.spawn_local(async move { (key, there.await) });
    }

    /// The next try whose environment is there, or is not to be had. `None` when none waits.
    pub async fn next(&mut self) -> Option<(Claimed, Result<(), String>)> {
        loop {
            // One that has panicked has asked in vain.
            let Ok((key, made)) = self.asking.join_next().await? else { continue };
            if let Some(claimed) = self.waiting.remove(&key) {
                return Some((claimed, made));
            }
        }
    }

    pub fn are_waited_for_by(&self, key: &TryKey) -> bool {
        self.waiting.contains_key(key)
    }

    /// How many slots those take that wait: who waits for a Python begins in a moment; who waits for an environment takes
    /// none from the others, as long as there are no more of them than slots.
    pub fn slots_taken(&self) -> usize {
        let soon = self.waiting.values().filter(|one| one.has_waited).count();
        soon + (self.waiting.len() - soon).saturating_sub(tries::SLOTS)
    }

    /// A try that is not to run any more. Returns whether it waited.
    pub fn give_up(&mut self, key: &TryKey) -> bool {
        self.waiting.remove(key).is_some()
    }
}

/// `None` when nobody answers.
async fn ask(home: &Home, hash: &str) -> Option<Answer> {
    let stream = unix_socket::connect(&home.api_socket()).ok()?;
    stream.set_nonblocking(true).ok()?;
    let stream = tokio::net::UnixStream::from_std(stream).ok()?;
    let path = format!("/local/environments/{}", http::encode(hash));
    let ask = Ask { method: Method::POST, path: &path, host: "localhost", headers: &[], body: String::new() };
    let (status, body) = http::ask(stream, ask).await.ok()?;
    status.is_success().then(|| serde_json::from_slice(&body).ok()).flatten()
}
