//! The entry point. Every exit code is decided here.

use crate::BUILT;
use crate::server_process::Process;
use leoflow_base::build_info;
use leoflow_base::home;
use leoflow_base::protocol::log;
use leoflow_base::sys::env_vars;
use leoflow_base::sys::fs::permissions;
use leoflow_base::sys::process::{limits, replace, set_own_name};
use leoflow_cli::args::airflow::{self, Program, Rows, Translation};
use leoflow_cli::args::{Global, complete, help};
use leoflow_cli::commands::{self, Cli};
use leoflow_cli::error::Error;
use leoflow_cli::terminal::printer::Printer;
use leoflow_processes::keeper;
use leoflow_python::home_of_command;
use serde_json::json;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use tracing::{Level, error};

/// Runs the program as `leoflow`, `leoflow-server`, `leoflow-agent` or `airflow`, by the name it was called with.
pub fn main() -> ExitCode {
    build_info::set(BUILT);
    set_own_name(&program_name().to_string_lossy());
    permissions::keep_owner_access();
    limits::report(time_is_up());
    if program_name() == keeper::PROGRAM_NAME {
        return keep_tasks();
    }
    if !env_vars::arguments().iter().any(|argument| argument == "--take-over") {
        // A process that replaced another by exec inherits blocked signals; a supervisor that takes over unblocks
        // them itself.
        replace::unblock_signals();
    }
    complete::answer_shell::<Cli>();
    let (arguments, rows) = match translated(arguments()) {
        Ok(translated) => translated,
        Err(code) => return code,
    };
    let mut cli = match help::parse::<Cli>(arguments) {
        Ok(cli) => cli,
        Err(usage) => {
            let code = u8::try_from(usage.exit_code()).unwrap_or(2);
            if code != 0 && asks_for_json(&env_vars::arguments()) {
                // There is no printer yet, because parsing failed.
                let line =
                    json!({"error": usage.to_string().trim_end(), "cause": null, "hints": [], "exit_code": code});
                let _ = writeln!(std::io::stderr(), "{line}");
                return ExitCode::from(code);
            }
            // `--help` arrives here too. A closed stdout is not an error.
            let _ = usage.print();
            return ExitCode::from(code);
        }
    };
    if cli.global.instance.is_none() {
        cli.global.home = cli.global.home.or_else(home_of_airflow);
    }
    let printer = Printer::new(&cli.global, cli.command.format(), help::command::<Cli>).with_rows(rows);
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| commands::run(cli, &printer, &Process)));
    let error = match outcome {
        Ok(Ok(code)) => return ExitCode::from(code),
        Ok(Err(error)) => error,
        Err(_) => Error::bug("this is a bug in leoflow; see the lines above")
            .hint("your data is safe; run the same command again"),
    };
    printer.error(&error);
    ExitCode::from(error.exit_code())
}

/// The arguments with Airflow's words translated to ours, and the form of JSON results; an exit code if that is all.
fn translated(arguments: Vec<OsString>) -> Result<(Vec<OsString>, Option<Rows>), ExitCode> {
    let (program, name) = match program_name() == "airflow" {
        true => (Program::Airflow, Some("leoflow".into())),
        false => (Program::Leoflow, arguments.first().cloned()),
    };
    let texts: Option<Vec<String>> = arguments.iter().skip(1).map(|text| Some(text.to_str()?.to_owned())).collect();
    // The words of commands are UTF-8.
    let Some(texts) = texts else { return Ok((arguments, None)) };
    let refusal = match airflow::translate(program, &texts) {
        Translation::Ours(texts, rows) => {
            return Ok((name.into_iter().chain(texts.into_iter().map(OsString::from)).collect(), rows));
        }
        Translation::Help(text) => {
            let _ = write!(std::io::stdout(), "{text}");
            return Err(ExitCode::SUCCESS);
        }
        Translation::Refused(refusal) => refusal,
    };
    // The program of an Apache Airflow in the environment of this shell or task.
    let installed = env_vars::path("VIRTUAL_ENV").map(|environment| environment.join("bin/airflow"));
    let error = match installed.filter(|path| program == Program::Airflow && refusal.is_for_installed && path.is_file())
    {
        Some(path) => {
            let mut command = Command::new(&path);
            command.args(texts);
            Error::io("run", &path, &replace::replace_self_by(command))
        }
        None => Error::usage(format!("no `airflow {}` here", refusal.command)).hint(refusal.sentence),
    };
    let global = Global { json: asks_for_json(&env_vars::arguments()), home: home_of_airflow(), ..Global::default() };
    Printer::new(&global, None, help::command::<Cli>).error(&error);
    Err(ExitCode::from(error.exit_code()))
}

/// The error of a process that has reached its CPU time limit (SIGXCPU).
fn time_is_up() -> String {
    let error = "the CPU time limit is exceeded (ulimit -t)";
    let hint = "raise the limit and run the same command again";
    match asks_for_json(&env_vars::arguments()) {
        true => format!("{}\n", json!({"error": error, "cause": null, "hints": [hint], "exit_code": 1})),
        false => format!("error: {error}\nhint: {hint}\n"),
    }
}

/// Runs a keeper, started by the agent as `leoflow-keeper HOME`. It sets up only what it needs: no argument parser.
fn keep_tasks() -> ExitCode {
    log::start("keeper", Level::INFO);
    let run = || {
        let path = env_vars::arguments().into_iter().nth(1).map(PathBuf::from);
        let home = home::resolve(path.as_deref()).map_err(io::Error::other)?;
        keeper::run(&home)
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// The name under which the program was called.
fn program_name() -> OsString {
    env_vars::arguments().first().map(Path::new).and_then(Path::file_name).unwrap_or_default().to_owned()
}

/// The home of the command `airflow`, which acts on its own instance whatever LEOFLOW_HOME and LEOFLOW_INSTANCE say.
fn home_of_airflow() -> Option<PathBuf> {
    let program = env_vars::arguments().into_iter().next().filter(|_| program_name() == "airflow")?;
    home_of_command(Path::new(&program))
}

/// Maps `leoflow-server …` to `leoflow server …`, and the agent likewise.
fn arguments() -> Vec<OsString> {
    let mut arguments = env_vars::arguments();
    let program_name = program_name();
    let role = program_name.to_str().and_then(|name| name.strip_prefix("leoflow-"));
    if let Some(role @ ("server" | "agent")) = role {
        arguments.insert(1, role.into());
    }
    arguments
}

/// Detects `--json`, `-o json` and `--output=json` without parsing the other arguments.
fn asks_for_json(arguments: &[OsString]) -> bool {
    let is_one_of = |argument: &OsString, options: &[&str]| options.iter().any(|option| argument == option);
    arguments.iter().any(|argument| is_one_of(argument, &["--json", "-ojson", "-o=json", "--output=json"]))
        || arguments.windows(2).any(|pair| is_one_of(&pair[0], &["-o", "--output"]) && pair[1] == "json")
}
