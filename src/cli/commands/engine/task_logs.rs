//! `leoflow tasks logs`: prints a task's log file, and follows it as it grows.

use super::run_view::{RunView, instance, resolve_run};
use crate::args::complete;
use crate::args::run_args::RunArgs;
use crate::context::Context;
use crate::error::Error;
use crate::terminal::tail::Tail;
use clap::Args;
use clap_complete::ArgValueCompleter;
use leoflow_base::protocol::task_log::{Line, Stream};
use leoflow_base::sys::fs::watch::FolderWatch;
use leoflow_engine::model::keys::{InstanceKey, RunKey, TryKey};
use serde_json::json;
use std::time::Duration;

#[derive(Args, Debug)]
pub struct TaskLogs {
    #[command(flatten)]
    pub run: RunArgs,
    /// The task's id
    #[arg(add = ArgValueCompleter::new(complete::task_ids))]
    pub task_id: String,
    /// Keep printing new lines until the task ends
    #[arg(long, short)]
    pub follow: bool,
    /// The number of the try, counted from 1 [default: the newest]
    #[arg(long = "try", value_name = "N")]
    pub try_number: Option<u32>,
    /// The instance of a mapped task, counted from 0; `work[7]` as the task's id means the same
    #[arg(long, value_parser = clap::value_parser!(i32).range(-1..), allow_negative_numbers = true)]
    pub map_index: Option<i32>,
    /// Print lines without time and stream
    #[arg(long)]
    pub plain: bool,
}

/// Poll interval of a task whose log folder does not exist yet.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// Interval at which the state of a followed task is read again.
const STATE_INTERVAL: Duration = Duration::from_millis(500);

pub async fn run(context: &Context<'_>, args: &TaskLogs) -> Result<u8, Error> {
    let api = context.api();
    let run_id = resolve_run(&api, &args.run).await?;
    let read_instance = async || {
        let run = RunView::get(&api, &args.run.dag_id, &run_id).await?;
        Ok::<_, Error>((instance(&run, &args.task_id, args.map_index)?.clone(), run.is_finished()))
    };
    let mut tail: Option<(i32, Tail)> = None;
    loop {
        let (instance, run_is_over) = read_instance().await?;
        let number = args.try_number.map_or(instance.try_number, |number| i32::try_from(number).unwrap_or(i32::MAX));
        if number > instance.try_number {
            return Err(Error::failed(format!("try {number} does not exist; the newest is {}", instance.try_number))
                .hint("omit --try for the newest"));
        }
        let state = instance.state.as_deref().unwrap_or("none");
        let is_over = number < instance.try_number || run_is_over || is_finished(state);
        if number == 0 && (is_over || !args.follow) {
            context.printer.note(format!("{} has not run yet; its state is {state}", instance.name()));
            return Ok(0);
        }
        let run = RunKey { dag_id: args.run.dag_id.clone(), run_id: run_id.clone() };
        let key = InstanceKey::new(run, &instance.task_id, instance.position);
        let path = TryKey { instance: key, try_number: number }.log_path(&context.home);
        // Each try has its own file.
        let tail = match &mut tail {
            Some((last_number, tail)) if *last_number == number => tail,
            other => &mut other.insert((number, Tail::at_start(path))).1,
        };
        print_new(context, args, tail)?;
        if !args.follow || is_over || context.printer.stdout_closed() {
            return Ok(0);
        }
        wait_for_more(tail);
    }
}

/// True when an instance in this state has no further output.
fn is_finished(state: &str) -> bool {
    ["success", "failed", "upstream_failed", "skipped", "removed"].contains(&state)
}

/// Waits until the file grows, or until the task's state is due to be read again.
fn wait_for_more(tail: &Tail) {
    let folder = tail.path().parent().unwrap_or(tail.path());
    let watch = FolderWatch::new(folder);
    // The file may have grown between the last read and the start of the watch.
    if !tail.has_more() {
        drop(watch.wait(if folder.is_dir() { STATE_INTERVAL } else { POLL_INTERVAL }));
    }
}

/// Prints complete lines; an unfinished last line is left for the next call.
fn print_new(context: &Context<'_>, args: &TaskLogs, tail: &mut Tail) -> Result<(), Error> {
    for line in tail.new_lines().map_err(Error::cannot("read", tail.path()))? {
        if context.printer.stdout_closed() {
            break;
        }
        let parsed = Line::parse(&line);
        let record = parsed.record();
        let value = json!({
            "time": parsed.time.map(|time| time.to_string()), "stream": parsed.stream.word(), "level": record.level,
            "logger": record.logger, "text": record.text(),
        });
        context.printer.show(&value, |printer| {
            if args.plain {
                return printer.line(record.text());
            }
            let colour = match (record.level.as_str(), parsed.stream) {
                ("error" | "critical", _) => "31",
                ("warning", _) => "33",
                (_, Stream::System) => "36",
                _ => "0",
            };
            let time = parsed.time.map(|time| printer.format_time(time)).unwrap_or_default();
            printer.line(format!("{time} {}", printer.paint(colour, &record.text())));
        })?;
    }
    Ok(())
}
