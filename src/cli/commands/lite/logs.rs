//! `leoflow lite logs`.

use crate::context::Context;
use crate::error::Error;
use crate::terminal::tail::Tail;
use clap::Args;
use leoflow_base::sys::fs::watch::FolderWatch;
use leoflow_processes::supervisor::{LOG_NAMES, last_lines};
use serde_json::json;
use std::time::Duration;

#[derive(Args, Debug)]
pub struct Logs {
    /// Keep printing new lines; Ctrl-C stops
    #[arg(long, short)]
    pub follow: bool,
    /// The number of last lines to print from each log
    #[arg(long, short = 'n', default_value_t = 50)]
    pub lines: usize,
    /// Only this process's log [default: all]
    #[arg(value_parser = ["supervisor", "postgres", "migrate", "server", "agent", "keeper", "upgrade"])]
    pub process: Option<String>,
}

pub fn run(context: &Context<'_>, args: &Logs) -> Result<u8, Error> {
    let names: Vec<&str> = match &args.process {
        Some(name) => vec![name.as_str()],
        None => LOG_NAMES.to_vec(),
    };
    let folder = context.home.logs();
    if !folder.is_dir() {
        return Err(Error::failed("no logs yet").hint("leoflow lite start"));
    }
    // The watch starts before the first read, so nothing written in between is missed.
    let watch = args.follow.then(|| FolderWatch::new(&folder));
    let tail = |name: &&str| ((*name).to_owned(), Tail::at_end(folder.join(format!("{name}.log"))));
    let mut tails: Vec<_> = names.iter().map(tail).collect();
    let width = if names.len() > 1 { names.iter().map(|name| name.len()).max().unwrap_or(0) } else { 0 };
    for name in &names {
        last_lines(&context.home, name, args.lines).iter().for_each(|line| show(context, width, name, line));
    }
    if let Some(watch) = watch {
        follow(context, &watch, &mut tails, width)?;
    }
    Ok(0)
}

/// Prints new lines until it is interrupted or stdout is closed.
fn follow(context: &Context<'_>, watch: &FolderWatch, tails: &mut [(String, Tail)], width: usize) -> Result<(), Error> {
    while !context.printer.stdout_closed() {
        for (name, tail) in tails.iter_mut() {
            // An unreadable log does not end the output of the others.
            tail.new_lines().unwrap_or_default().iter().for_each(|line| show(context, width, name, line));
        }
        let folder = context.home.logs();
        watch.wait(Duration::from_secs(60)).map_err(Error::cannot("watch", &folder))?;
    }
    Ok(())
}

fn show(context: &Context<'_>, width: usize, name: &str, line: &str) {
    if context.printer.json {
        context.printer.line(json!({"process": name, "line": line}).to_string());
    } else if width == 0 {
        context.printer.line(line);
    } else {
        context.printer.line(format!("{name:<width$} | {line}"));
    }
}
