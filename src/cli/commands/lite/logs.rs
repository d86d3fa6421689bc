//! `leoflow lite logs`.

use crate::context::Context;
use crate::error::Error;
use clap::Args;
use leoflow_base::sys::fs::watch::FolderWatch;
use leoflow_processes::supervisor::{LOG_NAMES, last_lines};
use serde_json::json;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
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
    #[arg(value_parser = ["supervisor", "postgres", "migrate", "server", "agent", "upgrade"])]
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
    let mut tails: Vec<Tail> =
        names.iter().map(|name| Tail::at_end(folder.join(format!("{name}.log")), name)).collect();
    let width = if names.len() > 1 { names.iter().map(|name| name.len()).max().unwrap_or(0) } else { 0 };
    for name in &names {
        for line in last_lines(&context.home, name, args.lines) {
            show(context, width, name, &line);
        }
    }
    if let Some(watch) = watch {
        follow(context, &watch, &mut tails, width)?;
    }
    Ok(0)
}

/// Prints new lines until it is interrupted or stdout is closed.
fn follow(context: &Context<'_>, watch: &FolderWatch, tails: &mut [Tail], width: usize) -> Result<(), Error> {
    while !context.printer.stdout_closed() {
        for tail in tails.iter_mut() {
            for line in tail.new_lines() {
                show(context, width, &tail.name, &line);
            }
        }
        let folder = context.home.logs();
        watch.wait(Duration::from_secs(60)).map_err(|error| Error::io("watch", &folder, &error))?;
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

/// The end of a growing log file that may be rotated.
struct Tail {
    path: PathBuf,
    name: String,
    /// Offset in bytes up to which the file was read.
    position: u64,
    inode: u64,
    /// The beginning of a line whose end was not written yet.
    partial: Vec<u8>,
}

impl Tail {
    fn at_end(path: PathBuf, name: &str) -> Self {
        let (position, inode) = std::fs::metadata(&path).map_or((0, 0), |meta| (meta.len(), meta.ino()));
        Self { path, name: name.to_owned(), position, inode, partial: Vec::new() }
    }

    /// Reads new complete lines. A file that is missing during a rotation has none.
    fn new_lines(&mut self) -> Vec<String> {
        let Ok(mut file) = File::open(&self.path) else { return Vec::new() };
        let Ok(meta) = file.metadata() else { return Vec::new() };
        if meta.ino() != self.inode || meta.len() < self.position {
            (self.position, self.inode) = (0, meta.ino());
        }
        let mut new_bytes = Vec::new();
        if file.seek(SeekFrom::Start(self.position)).is_err() || file.read_to_end(&mut new_bytes).is_err() {
            return Vec::new();
        }
        self.position += new_bytes.len() as u64;
        self.partial.extend_from_slice(&new_bytes);
        let mut lines = Vec::new();
        while let Some(end) = self.partial.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.partial.drain(..=end).collect();
            lines.push(String::from_utf8_lossy(&line[..end]).into_owned());
        }
        lines
    }
}
