//! Shell completion of ids, read from the running server. The shell blocks at each Tab, so a response that takes longer
//! than `timeout` yields no candidates.

use crate::api_client::{Api, encode};
use clap::{Arg, Command, CommandFactory};
use clap_complete::CompletionCandidate;
use clap_complete::env::{CompleteEnv, Shells};
use leoflow_base::home::{self, instances};
use leoflow_base::sys::env_vars;
use serde_json::Value;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

/// Time limit for the server's answer.
fn timeout() -> Duration {
    leoflow_base::sys::limit("LEOFLOW_COMPLETE_LIMIT", Duration::from_secs(2))
}

/// Environment variable set by the script that `completions` prints; marks a completion request from a shell.
const REQUEST_VARIABLE: &str = "LEOFLOW_COMPLETE";

/// The typed words of the completion request. clap's completers get only the word at the cursor.
static TYPED: OnceLock<Typed> = OnceLock::new();

/// Answers a completion request and exits; returns when there is none.
pub fn answer_shell<C: CommandFactory>() {
    if env_vars::is_set(REQUEST_VARIABLE) {
        let arguments = env_vars::arguments().into_iter().skip_while(|argument| argument != "--").skip(2);
        let _ = TYPED.set(Typed::parse(C::command(), arguments.filter_map(|argument| argument.into_string().ok())));
    }
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
    let Some(dag_id) = typed_dag_id() else { return Vec::new() };
    let path = format!("/api/v2/dags/{}/dagRuns?limit=50&order_by=-run_after", encode(dag_id));
    let mut candidates = ids(current, &path, |response| field_values(&response["dag_runs"], "dag_run_id"));
    if current.to_str().is_some_and(|current| "latest".starts_with(current)) {
        candidates.insert(0, CompletionCandidate::new("latest"));
    }
    candidates
}

pub fn task_ids(current: &OsStr) -> Vec<CompletionCandidate> {
    let Some(dag_id) = typed_dag_id() else { return Vec::new() };
    ids(current, &format!("/api/lite/dags/{}", encode(dag_id)), |response| field_values(&response["tasks"], "task_id"))
}

/// Values of the field `name` in a JSON array of objects.
fn field_values(list: &Value, name: &str) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(|item| item[name].as_str().map(str::to_owned)).collect()
}

/// The DAG in `leoflow COMMAND SUBCOMMAND DAG`.
fn typed_dag_id() -> Option<&'static str> {
    TYPED.get()?.words.get(2).map(String::as_str)
}

/// The words of a command line that may be incomplete or wrong.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Typed {
    /// The words that are neither options nor their values: command, subcommand, DAG, ….
    pub words: Vec<String>,
    /// The value of `--home`.
    home: Option<String>,
    /// The value of `--instance`.
    instance: Option<String>,
}

impl Typed {
    pub fn parse(mut root: Command, mut arguments: impl Iterator<Item = String>) -> Self {
        // Adds the global options to all subcommands.
        root.build();
        let (mut command, mut typed) = (&root, Self::default());
        while let Some(argument) = arguments.next() {
            if argument == "--" {
                typed.words.extend(arguments);
                break;
            }
            if !argument.starts_with('-') || argument == "-" {
                command = command.find_subcommand(&argument).unwrap_or(command);
                typed.words.push(argument);
                continue;
            }
            let Some((option, attached)) = option_with_value(command, &argument) else { continue };
            // bash passes `--output=json` as three words.
            let value = attached.or_else(|| arguments.next()).and_then(|value| match value.as_str() {
                "=" => arguments.next(),
                _ => Some(value),
            });
            match option.get_long() {
                Some("home") => typed.home = value,
                Some("instance") => typed.instance = value,
                _ => {}
            }
        }
        typed
    }

    /// The home that `--home` or `--instance` names.
    fn home(&self) -> Option<PathBuf> {
        let instance_home = || instances::root(self.instance.as_deref()?).ok();
        self.home.as_ref().map(PathBuf::from).or_else(instance_home)
    }
}

/// Returns the option that needs a value, and the value that is part of the argument, as in `--output=json` or `-ojson`.
/// `None` for a flag and an unknown option.
fn option_with_value<'a>(command: &'a Command, argument: &str) -> Option<(&'a Arg, Option<String>)> {
    let find = |matches: &dyn Fn(&Arg) -> bool| {
        command.get_arguments().filter(|option| !option.is_positional()).find(|option| matches(option))
    };
    let needs_value = |option: &&Arg| option.get_num_args().is_some_and(|count| count.min_values() > 0);
    if let Some(long) = argument.strip_prefix("--") {
        let (name, attached) = long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value)));
        let has_name = |option: &Arg| {
            option.get_long() == Some(name) || option.get_all_aliases().is_some_and(|aliases| aliases.contains(&name))
        };
        return find(&has_name).filter(needs_value).map(|option| (option, attached.map(str::to_owned)));
    }
    // Short options may be joined: only the last one can have a value.
    let letters = &argument[1..];
    letters.char_indices().find_map(|(index, letter)| {
        let option = find(&|option| option.get_short() == Some(letter)).filter(needs_value)?;
        let attached = &letters[index + letter.len_utf8()..];
        Some((option, (!attached.is_empty()).then(|| attached.trim_start_matches('=').to_owned())))
    })
}

/// Completes `current` with the ids that `read` finds in the server's response to a GET of `path`.
fn ids(current: &OsStr, path: &str, read: impl Fn(&Value) -> Vec<String>) -> Vec<CompletionCandidate> {
    let current = current.to_str().unwrap_or_default();
    let fetch = || {
        let home = home::resolve(TYPED.get().and_then(Typed::home).as_deref()).ok()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
        let api = Api::new(&home);
        let request = async { tokio::time::timeout(timeout(), api.get::<Value>(path)).await };
        Some(read(&runtime.block_on(request).ok()?.ok()?))
    };
    let candidates = fetch().unwrap_or_default();
    candidates.into_iter().filter(|id| id.starts_with(current)).map(CompletionCandidate::new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ArgAction;

    fn typed(line: &str) -> Typed {
        let value = |long: &'static str| Arg::new(long).long(long).action(ArgAction::Set);
        let root = Command::new("leoflow")
            .arg(value("home").global(true))
            .arg(value("instance").global(true))
            .arg(Arg::new("verbose").long("verbose").short('v').action(ArgAction::Count).global(true));
        let list = Command::new("list")
            .arg(Arg::new("dag"))
            .arg(value("output").short('o').visible_alias("format"))
            .arg(value("state"));
        let root = root.subcommand(Command::new("runs").subcommand(list));
        Typed::parse(root, line.split(' ').map(str::to_owned))
    }

    #[test]
    fn values_of_options_are_no_words() {
        for line in [
            "runs list dag",
            "runs list --output json dag",
            "runs list --output=json dag",
            "runs list --output = json dag",
            "runs list --format json dag",
            "runs list -o json dag",
            "runs list -vo json dag",
            "runs list -ojson -v dag",
            "runs --verbose list --state - dag",
            "runs list --unknown dag",
            "runs list -- dag",
            "--home folder runs --instance one list dag",
        ] {
            assert_eq!(typed(line).words, ["runs", "list", "dag"], "{line}");
        }
    }

    #[test]
    fn the_home_is_found_in_both_forms() {
        for line in ["--home /folder runs", "runs list --home=/folder"] {
            assert_eq!(typed(line).home(), Some(PathBuf::from("/folder")), "{line}");
        }
        assert_eq!(typed("runs --instance one list").instance.as_deref(), Some("one"));
        assert_eq!(typed("runs list dag"), Typed { words: typed("runs list dag").words, ..Typed::default() });
    }
}
