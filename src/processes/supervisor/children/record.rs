//! `run/processes.json`: the children of a running or killed supervisor. When the supervisor is killed, its children
//! exit because the lifeline (a pipe from the supervisor) closes. The next start stops the children that remain, as far
//! as it can identify them.

use super::dag_file_processes;
use leoflow_base::home::Home;
use leoflow_base::sys::fs::files;
use leoflow_base::sys::process::{ProcessId, Signal, is_pid_alive, signal_group};
use leoflow_postgres::cluster::leftovers;
use leoflow_postgres::location::{self, Kind};
use serde::{Deserialize, Serialize};
use std::io;
use std::time::Duration;

#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Record {
    pub children: Vec<(String, ProcessId)>,
}

impl Record {
    /// Not fsynced: after a power loss there are no processes.
    pub fn write(&self, home: &Home) -> io::Result<()> {
        let temporary = files::temporary_neighbour(&home.processes());
        std::fs::write(&temporary, serde_json::to_vec(self)?)?;
        std::fs::rename(&temporary, home.processes())
    }

    /// A damaged file identifies no process, so none is stopped. A failed read is an error: leftover processes would
    /// run beside the new ones.
    fn read(home: &Home) -> io::Result<Self> {
        files::read_json_or_default(&home.processes(), 1024 * 1024)
    }
}

/// Finds the processes that a killed supervisor left running, by name. Read-only.
pub fn find_leftovers(home: &Home) -> io::Result<Vec<(String, ProcessId)>> {
    Ok(remaining(home, &Record::read(home)?.children))
}

fn remaining(home: &Home, children: &[(String, ProcessId)]) -> Vec<(String, ProcessId)> {
    let has_relay = location::kind(home) != Kind::Managed;
    let is_remaining = |(name, process): &&(String, ProcessId)| (has_relay || name != "postgres") && process.is_alive();
    let servers = leftovers::find(home).into_iter().map(|process| ("postgres".to_owned(), process));
    children.iter().filter(is_remaining).cloned().chain(servers).collect()
}

/// Stops the processes that a killed supervisor left running and returns their names. The caller holds the home's lock,
/// so they are not the children of a running supervisor.
pub fn end_leftovers(home: &Home) -> io::Result<Vec<String>> {
    let children = Record::read(home)?.children;
    let processes = remaining(home, &children);
    let has_relay = location::kind(home) != Kind::Managed;
    for (_, process) in processes.iter().rev().filter(|(name, _)| has_relay || name != "postgres") {
        process.signal(Signal::Terminate);
        if !process.wait_gone(Duration::from_secs(2)) {
            signal_group(process.pid, Signal::Kill);
            process.signal(Signal::Kill);
            process.wait_gone(Duration::from_secs(2));
        }
    }
    // Another process may have the pid of a server that has ended.
    for (_, server) in children.iter().filter(|(name, child)| name == "server" && !is_pid_alive(child.pid)) {
        dag_file_processes::end_of(server.pid);
    }
    leftovers::end(home)?;
    let mut names: Vec<String> = processes.into_iter().map(|(name, _)| name).collect();
    names.dedup();
    Ok(names)
}
