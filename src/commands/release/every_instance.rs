//! `--all`: a command for every instance of this user, one after another, each by its own program. A table as it goes; the
//! first that fails ends it, unless it is to go on; the same again does what is left.

use crate::agent;
use crate::cli::args::{Backup, LiteStop};
use crate::cli::printer::in_words;
use crate::cli::upgrade_args::Upgrade;
use crate::commands::context::Context;
use crate::commands::lite::stop::unread_tasks;
use crate::config::{self, SETTINGS};
use crate::error::Error;
use crate::home::progress::{Progress, Reporter};
use crate::home::{Home, all_instances};
use crate::protocol::child::RELEASE_SOURCE;
use crate::protocol::own_command::{self, Failure};
use crate::sys::blocking;
use crate::sys::process::{Signal, signal_process};
use crate::sys::{env_vars, files};
use crate::upgrade::source::Source;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::unbounded_channel;

type Instance = (String, Home);

/// How often one that is to be ended is looked at.
const ROUND: Duration = Duration::from_millis(100);

/// What became of one.
#[derive(Debug)]
enum Ended {
    Done(Value),
    /// By the same command before, which did not come to its end.
    DoneBefore,
    Failed {
        result: Option<Value>,
        failure: Failure,
    },
    /// One before it failed.
    Left,
}

impl Ended {
    fn json(&self, name: &str) -> Value {
        let (status, result, error) = match self {
            Self::Done(result) => ("done", Some(result), None),
            Self::DoneBefore => ("done_before", None, None),
            Self::Failed { result, failure } => ("failed", result.as_ref(), Some(failure)),
            Self::Left => ("left", None, None),
        };
        json!({"name": name, "status": status, "result": result, "error": error})
    }
}

/// What ends it from outside.
struct Stops([tokio::signal::unix::Signal; 3]);

impl Stops {
    const KINDS: [SignalKind; 3] = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];

    fn listen() -> Result<Self, Error> {
        let [interrupt, terminate, hangup] = Self::KINDS.map(signal);
        let listen = || Ok::<_, std::io::Error>(Self([interrupt?, terminate?, hangup?]));
        listen().map_err(Error::failed)
    }

    /// The number of the next one.
    async fn next(&mut self) -> i32 {
        let [interrupt, terminate, hangup] = &mut self.0;
        let at = tokio::select! {
            _ = interrupt.recv() => 0,
            _ = terminate.recv() => 1,
            _ = hangup.recv() => 2,
        };
        Self::KINDS[at].as_raw_value()
    }
}

/// What is done with each, and how that is told.
struct Task<'a> {
    arguments: Vec<OsString>,
    variables: Vec<(&'static str, OsString)>,
    keep_going: bool,
    /// Of what the command prints.
    in_words: fn(&Value) -> String,
    /// Which were done by the same before.
    round: Option<&'a mut Round>,
}

/// Those that are meant; refused where there are none.
fn instances(only: &[String]) -> Result<Vec<Instance>, Error> {
    let mut all = all_instances();
    if all.is_empty() {
        return Err(Error::failed("there is no instance of yours on this machine").hint("leoflow lite start"));
    }
    if let Some(missing) = only.iter().find(|name| !all.iter().any(|(other, _)| *name == other)) {
        return Err(Error::failed(format!("there is no instance {missing:?}; those that are there: {}", names(&all)))
            .hint("leoflow instances list"));
    }
    all.retain(|(name, _)| only.is_empty() || only.contains(name));
    Ok(all)
}

fn names(all: &[Instance]) -> String {
    all.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
}

/// `leoflow lite stop --all`.
pub async fn stop(context: &Context<'_>, args: &LiteStop) -> Result<u8, Error> {
    let all = instances(&args.all.only)?;
    let mut running = 0;
    for (_, home) in &all {
        let (count, unread) = agent::running(home);
        if let Some(error) = unread {
            context
                .printer
                .warning(format!("not every task that runs is known: {}", unread_tasks(home, &error).message));
        }
        running += count;
    }
    if running > 0 && !args.yes && !args.wait {
        context.printer.note(format!("{running} task(s) run; a stop ends them. `--wait` lets them finish first."));
        if !context.confirm(&format!("Stop {}, and end them?", names(&all)), false)? {
            return Err(Error::failed("nothing was stopped"));
        }
    }
    let how = if args.wait { "--wait" } else { "--yes" };
    let in_words = |result: &Value| match (result["was_running"] == true, result["ended_tasks"].as_u64()) {
        (false, _) => "was not running".to_owned(),
        (true, Some(ended @ 1..)) => format!("stopped, ended {ended} running task(s)"),
        (true, _) => "stopped".to_owned(),
    };
    let arguments = ["lite", "stop", how].map(OsString::from).to_vec();
    let task = Task { arguments, variables: Vec::new(), keep_going: args.all.keep_going, in_words, round: None };
    each(context, all, task).await
}

/// `leoflow upgrade --all`.
pub async fn upgrade(context: &Context<'_>, args: &Upgrade) -> Result<u8, Error> {
    let instances = instances(&args.all.only)?;
    if !args.dry_run {
        let what = args.version.as_deref().unwrap_or("the newest release");
        if !context.confirm(&format!("Upgrade {}, one after another, to {what}?", names(&instances)), args.yes)? {
            context.printer.note("Nothing was changed");
            return Ok(1);
        }
    }
    let mut arguments = vec![OsString::from("upgrade")];
    arguments.extend(args.version.as_ref().map(OsString::from));
    let mut variables = Vec::new();
    match args.from.from.as_deref() {
        // Not among the arguments, which every user of the machine can read.
        Some(from) if Source::parse(from).has_secret() => variables.push((RELEASE_SOURCE, from.into())),
        Some(from) => arguments.extend(["--from".into(), from.into()]),
        None => {}
    }
    arguments.push(if args.dry_run { "--dry-run" } else { "--yes" }.into());
    if args.no_rollback {
        arguments.push("--no-rollback".into());
    }
    let in_words = |result: &Value| {
        let text = |name: &str| result[name].as_str().unwrap_or_default();
        match text("status") {
            "up_to_date" => format!("is at {} already", text("version")),
            "" => format!("would go from {} to {}", text("from"), text("to")),
            _ => format!("upgraded from {} to {}", text("previous_version"), text("new_version")),
        }
    };
    each(context, instances, Task { arguments, variables, keep_going: args.all.keep_going, in_words, round: None })
        .await
}

/// `leoflow lite backup --all`.
pub async fn backup(context: &Context<'_>, args: &Backup) -> Result<u8, Error> {
    let all = instances(&args.all.only)?;
    // Some that are chosen are no part of a round of all.
    let mut round = args.all.only.is_empty().then(|| Round::of(&all[0].1));
    let in_words = |result: &Value| {
        let size = in_words(result["size_bytes"].as_u64().unwrap_or(0));
        let lacks = match result["skipped"].as_array().map_or(0, Vec::len) {
            0 => String::new(),
            count => format!(", without {count} file(s) that could not be read"),
        };
        format!("{}, {size}{lacks}", result["path"].as_str().unwrap_or_default())
    };
    let arguments = ["lite", "backup"].map(OsString::from).to_vec();
    let keep_going = args.all.keep_going;
    each(context, all, Task { arguments, variables: Vec::new(), keep_going, in_words, round: round.as_mut() }).await
}

async fn each(context: &Context<'_>, all: Vec<Instance>, mut task: Task<'_>) -> Result<u8, Error> {
    let printer = context.printer;
    let (mut stops, mut stopped) = (Stops::listen()?, None);
    let width = all.iter().map(|(name, _)| name.len()).max().unwrap_or(0).max("INSTANCE".len());
    let row = |name: &str, text: &str| {
        if !printer.json {
            printer.line(format!("{name:<width$}  {text}"));
        }
    };
    row("INSTANCE", "RESULT");
    let (mut ended, mut is_over): (Vec<(String, Ended)>, bool) = (Vec::new(), false);
    for (name, home) in all {
        let one = match &task.round {
            _ if is_over => Ended::Left,
            Some(round) if round.done.contains(&name) => Ended::DoneBefore,
            _ => {
                let began = Instant::now();
                let (one, by) = one(context, &name, &home, &task, &mut stops).await;
                stopped = by;
                is_over = by.is_some() || matches!(one, Ended::Failed { .. }) && !task.keep_going;
                if let Ended::Done(result) = &one {
                    let seconds = began.elapsed().as_secs_f64();
                    row(&name, &format!("{} ({seconds:.1} s)", (task.in_words)(result)));
                }
                one
            }
        };
        match &one {
            Ended::Done(_) => {
                if let Some(round) = &mut task.round {
                    round.add(&name).unwrap_or_else(|error| {
                        printer.warning(format!("that {name} is done cannot be written down: {error}"));
                    });
                }
            }
            Ended::DoneBefore => row(&name, "done before; the last `--all` did not come to its end"),
            Ended::Failed { failure, .. } => row(&name, &format!("failed: {}", failure.error)),
            Ended::Left => row(&name, "left as it is"),
        }
        ended.push((name, one));
    }
    if printer.json {
        let shown: Vec<Value> = ended.iter().map(|(name, one)| one.json(name)).collect();
        printer.json(&json!({"instances": shown}))?;
    }
    if let Some(number) = stopped {
        let done = ended.iter().filter(|(_, one)| matches!(one, Ended::Done(_) | Ended::DoneBefore)).count();
        return Err(Error::signal(number, format!("it was cancelled: {done} of {} are done", ended.len()))
            .hint("the same command again does only what is left"));
    }
    summary(&ended)?;
    task.round.map_or(Ok(0), |round| round.end().map(|()| 0))
}

/// What it fails with: of each that failed, why.
fn summary(ended: &[(String, Ended)]) -> Result<(), Error> {
    let failed: Vec<(&str, &Failure)> = ended
        .iter()
        .filter_map(|(name, one)| match one {
            Ended::Failed { failure, .. } => Some((name.as_str(), failure)),
            _ => None,
        })
        .collect();
    let Some((_, first)) = failed.first() else { return Ok(()) };
    let message = format!("{} of {} instances failed", failed.len(), ended.len());
    let error = if first.exit_code == Some(3) { Error::refused(message) } else { Error::failed(message) };
    let causes: Vec<String> = failed.iter().map(|(name, failure)| format!("{name}: {failure}")).collect();
    let error = error.cause(causes.join("\n")).hint("the same command again does only what is left");
    let has_left = ended.iter().any(|(_, one)| matches!(one, Ended::Left));
    Err(if has_left { error.hint("--keep-going does the others all the same") } else { error })
}

/// Runs the command of one, by the program that is installed for it. With the signal by which it was to be ended meanwhile.
async fn one(
    context: &Context<'_>,
    name: &str,
    home: &Home,
    task: &Task<'_>,
    stops: &mut Stops,
) -> (Ended, Option<i32>) {
    let installed = home.bin().join("leoflow");
    let program = match env_vars::current_exe() {
        _ if installed.exists() => installed,
        Ok(own) => own,
        Err(error) => return (Ended::Failed { result: None, failure: Failure::new(error) }, None),
    };
    let mut own = own_command::command(&program, Some(home));
    own.args(&task.arguments);
    // They are for the instance that this command would be for, and not for each.
    for name in SETTINGS.iter().filter_map(config::variable_of) {
        own.env_remove(name);
    }
    own.envs(task.variables.iter().cloned());
    let pid = Arc::new(AtomicI32::new(0));
    let (of_child, (said, mut lines)) = (pid.clone(), unbounded_channel());
    context.printer.report(Progress::Started(name.to_owned()));
    let mut work = blocking::begin(move || {
        let tell = &mut |line: &str| drop(said.send(line.to_owned()));
        own_command::run(&mut own, Duration::MAX, &mut |pid| of_child.store(pid, Ordering::SeqCst), tell)
    });
    let mut stopped = None;
    let ended = loop {
        tokio::select! {
            biased;
            Some(line) = lines.recv() => context.printer.report(Progress::Detail(format!("{name}: {line}"))),
            ended = &mut work => break ended,
            number = stops.next() => stopped = Some(number),
            // It is in a group of its own, which the terminal does not reach; it may be beginning still.
            () = tokio::time::sleep(ROUND), if stopped.is_some() => {
                let pid = pid.swap(0, Ordering::SeqCst);
                if pid > 0 {
                    signal_process(pid, Signal::Interrupt);
                }
            }
        }
    };
    let ended = match ended.unwrap_or_else(|error| Err(Failure::new(error))) {
        Ok(printed) => match printed.problem() {
            None => Ended::Done(printed.json),
            Some(failure) => Ended::Failed { result: Some(printed.json), failure },
        },
        Err(failure) => Ended::Failed { result: None, failure },
    };
    (ended, stopped)
}

/// Which a backup of all has done, until it has done all: that of each is another file, and none tells of the others.
#[derive(Debug, Serialize, Deserialize)]
struct Round {
    began_at: Timestamp,
    done: Vec<String>,
    #[serde(skip)]
    home: Option<Home>,
}

impl Round {
    /// After so long a backup of all is another one: that of the next day is never the one before.
    const LASTS: SignedDuration = SignedDuration::from_hours(6);
    const SIZE_LIMIT: u64 = 64 * 1024;

    /// What the last one left, in the first instance's home.
    fn of(home: &Home) -> Self {
        let text = files::read_text(&home.backup_of_all(), Self::SIZE_LIMIT).ok().flatten();
        let left: Option<Self> = text.and_then(|text| serde_json::from_str(&text).ok());
        let now = Timestamp::now();
        let left = left.filter(|left| now.duration_since(left.began_at).abs() < Self::LASTS);
        let round = left.unwrap_or(Self { began_at: now, done: Vec::new(), home: None });
        Self { home: Some(home.clone()), ..round }
    }

    fn add(&mut self, name: &str) -> std::io::Result<()> {
        self.done.push(name.to_owned());
        let Some(home) = &self.home else { return Ok(()) };
        home.create_folder(&home.run())?;
        files::write_atomic(&home.backup_of_all(), &serde_json::to_vec(self)?, 0o600)
    }

    fn end(&self) -> Result<(), Error> {
        let Some(home) = &self.home else { return Ok(()) };
        let path = home.backup_of_all();
        files::remove_any(&path).map_err(|error| Error::io("remove", &path, &error))
    }
}
