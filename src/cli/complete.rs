//! Completion of ids: what the running server has. The shell asks at each Tab, so an answer that takes long is none.

use super::api::{Api, encode};
use crate::home::{self, instances};
use crate::sys::env_vars;
use clap::CommandFactory;
use clap_complete::CompletionCandidate;
use clap_complete::env::{CompleteEnv, Shells};
use serde_json::Value;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(2);
/// In the environment, set by the script that `completions` prints: it is a shell that asks.
const VARIABLE: &str = "LEOFLOW_COMPLETE";

/// Answers a shell, where it is one that asks, and ends.
pub fn answer_shell<C: CommandFactory>() {
    CompleteEnv::with_factory(C::command).var(VARIABLE).complete();
}

/// What a shell reads once, to ask from then on.
pub fn script(shell: &str) -> std::io::Result<Vec<u8>> {
    let mut script = Vec::new();
    let shells = Shells::builtins();
    let found = shells.completer(shell).ok_or(std::io::ErrorKind::Unsupported)?;
    found.write_registration(VARIABLE, "leoflow", "leoflow", "leoflow", &mut script)?;
    Ok(script)
}

pub fn dag_ids(current: &OsStr) -> Vec<CompletionCandidate> {
    ids(current, "/api/lite/dags", |found| texts(&found["dags"], "dag_id"))
}

pub fn run_ids(current: &OsStr) -> Vec<CompletionCandidate> {
    let Some(dag_id) = words().get(2).cloned() else { return Vec::new() };
    let path = format!("/api/v2/dags/{}/dagRuns?limit=50&order_by=-run_after", encode(&dag_id));
    let mut found = ids(current, &path, |found| texts(&found["dag_runs"], "dag_run_id"));
    if current.to_str().is_some_and(|current| "latest".starts_with(current)) {
        found.insert(0, CompletionCandidate::new("latest"));
    }
    found
}

pub fn task_ids(current: &OsStr) -> Vec<CompletionCandidate> {
    let Some(dag_id) = words().get(2).cloned() else { return Vec::new() };
    ids(current, &format!("/api/lite/dags/{}", encode(&dag_id)), |found| texts(&found["tasks"], "task_id"))
}

fn texts(list: &Value, name: &str) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(|one| one[name].as_str().map(str::to_owned)).collect()
}

/// What was typed before, without options: group, command, DAG.
fn words() -> Vec<String> {
    let typed = env_vars::arguments().into_iter().skip_while(|word| word != "--").skip(2);
    let mut words = Vec::new();
    let mut is_value = false;
    for word in typed.filter_map(|word| word.into_string().ok()) {
        // The one that has a value and stands before ids.
        if !std::mem::replace(&mut is_value, ["--home", "--instance"].contains(&word.as_str()))
            && !word.starts_with('-')
        {
            words.push(word);
        }
    }
    words
}

/// `--home`, or that of `--instance`, as far as it was typed.
fn typed_home() -> Option<PathBuf> {
    let typed = env_vars::arguments();
    let after = |option: &str| typed.iter().position(|word| word == option).and_then(|at| typed.get(at + 1));
    let named = || instances::root(after("--instance")?.to_str()?).ok();
    after("--home").map(PathBuf::from).or_else(named)
}

fn ids(current: &OsStr, path: &str, read: impl Fn(&Value) -> Vec<String>) -> Vec<CompletionCandidate> {
    let current = current.to_str().unwrap_or_default();
    let asked = || {
        let home = home::resolve(typed_home().as_deref()).ok()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
        let api = Api::new(&home);
        let asking = async { tokio::time::timeout(PATIENCE, api.get::<Value>(path)).await };
        Some(read(&runtime.block_on(asking).ok()?.ok()?))
    };
    let found = asked().unwrap_or_default();
    found.into_iter().filter(|id| id.starts_with(current)).map(CompletionCandidate::new).collect()
}
