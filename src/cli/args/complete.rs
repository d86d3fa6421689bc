//! Shell completion of ids, read from the running server. The shell blocks at each Tab, so a response that takes longer
//! than `TIMEOUT` yields no candidates.

use crate::api_client::{Api, encode};
use clap::CommandFactory;
use clap_complete::CompletionCandidate;
use clap_complete::env::{CompleteEnv, Shells};
use leoflow_base::home::{self, instances};
use leoflow_base::sys::env_vars;
use serde_json::Value;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Duration;

/// Time limit for the server's answer.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Environment variable set by the script that `completions` prints; marks a completion request from a shell.
const REQUEST_VARIABLE: &str = "LEOFLOW_COMPLETE";

/// Answers a completion request and exits; returns when there is none.
pub fn answer_shell<C: CommandFactory>() {
    CompleteEnv::with_factory(C::command).var(REQUEST_VARIABLE).complete();
}

/// The script that registers completion with a shell.
pub fn script(shell: &str) -> std::io::Result<Vec<u8>> {
    let mut script = Vec::new();
    let shells = Shells::builtins();
    let completer = shells.completer(shell).ok_or(std::io::ErrorKind::Unsupported)?;
    completer.write_registration(REQUEST_VARIABLE, "leoflow", "leoflow", "leoflow", &mut script)?;
    Ok(script)
}

pub fn dag_ids(current: &OsStr) -> Vec<CompletionCandidate> {
    ids(current, "/api/lite/dags", |response| field_values(&response["dags"], "dag_id"))
}

pub fn run_ids(current: &OsStr) -> Vec<CompletionCandidate> {
    let Some(dag_id) = typed_words().get(2).cloned() else { return Vec::new() };
    let path = format!("/api/v2/dags/{}/dagRuns?limit=50&order_by=-run_after", encode(&dag_id));
    let mut candidates = ids(current, &path, |response| field_values(&response["dag_runs"], "dag_run_id"));
    if current.to_str().is_some_and(|current| "latest".starts_with(current)) {
        candidates.insert(0, CompletionCandidate::new("latest"));
    }
    candidates
}

pub fn task_ids(current: &OsStr) -> Vec<CompletionCandidate> {
    let Some(dag_id) = typed_words().get(2).cloned() else { return Vec::new() };
    ids(current, &format!("/api/lite/dags/{}", encode(&dag_id)), |response| field_values(&response["tasks"], "task_id"))
}

/// Values of the field `name` in a JSON array of objects.
fn field_values(list: &Value, name: &str) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(|item| item[name].as_str().map(str::to_owned)).collect()
}

/// The words typed so far, without options: command, subcommand, DAG.
fn typed_words() -> Vec<String> {
    let typed = env_vars::arguments().into_iter().skip_while(|argument| argument != "--").skip(2);
    let mut typed_words = Vec::new();
    let mut is_value = false;
    for argument in typed.filter_map(|argument| argument.into_string().ok()) {
        // Only these options have a value and come before ids.
        if !std::mem::replace(&mut is_value, ["--home", "--instance"].contains(&argument.as_str()))
            && !argument.starts_with('-')
        {
            typed_words.push(argument);
        }
    }
    typed_words
}

/// The home that a typed `--home` or `--instance` names.
fn typed_home() -> Option<PathBuf> {
    let typed = env_vars::arguments();
    let after =
        |option: &str| typed.iter().position(|argument| argument == option).and_then(|index| typed.get(index + 1));
    let instance_home = || instances::root(after("--instance")?.to_str()?).ok();
    after("--home").map(PathBuf::from).or_else(instance_home)
}

/// Completes `current` with the ids that `read` finds in the server's response to a GET of `path`.
fn ids(current: &OsStr, path: &str, read: impl Fn(&Value) -> Vec<String>) -> Vec<CompletionCandidate> {
    let current = current.to_str().unwrap_or_default();
    let fetch = || {
        let home = home::resolve(typed_home().as_deref()).ok()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
        let api = Api::new(&home);
        let request = async { tokio::time::timeout(TIMEOUT, api.get::<Value>(path)).await };
        Some(read(&runtime.block_on(request).ok()?.ok()?))
    };
    let candidates = fetch().unwrap_or_default();
    candidates.into_iter().filter(|id| id.starts_with(current)).map(CompletionCandidate::new).collect()
}
