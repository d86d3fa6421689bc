//! `run/processes.json`: the children of the supervisor that runs, or of one that was killed. They
//! leave by the lifeline; the next start ends those that did not, and only those it can prove.

use crate::home::Home;
use crate::postgres::leftovers;
use crate::postgres::place::{self, Kind};
use crate::sys::files;
use crate::sys::process::{ProcessId, Signal, signal_group};
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
        let neighbour = files::temporary_neighbour(&home.processes());
        std::fs::write(&neighbour, serde_json::to_vec(self)?)?;
        std::fs::rename(&neighbour, home.processes())
    }

    /// A damaged one proves nothing, and without proof nothing is ended. A failed read is an error: what was left running
    /// would go on beside the new processes.
    fn read(home: &Home) -> io::Result<Self> {
        files::read_json_or_default(&home.processes(), 1024 * 1024)
    }
}

/// What a killed supervisor left running, by name. Changes nothing.
pub fn find_leftovers(home: &Home) -> io::Result<Vec<(String, ProcessId)>> {
    let children = Record::read(home)?.children.into_iter();
    let has_relay = place::kind(home) != Kind::Managed;
    let ours = children.filter(|(name, process)| (has_relay || name != "postgres") && process.is_alive());
    let servers = leftovers::find(home).into_iter().map(|process| ("postgres".to_owned(), process));
    Ok(ours.chain(servers).collect())
}

/// Ends it. Returns the names of what there was.
/// The caller holds the home's lock, so no live supervisor's children can be meant.
pub fn end_leftovers(home: &Home) -> io::Result<Vec<String>> {
    let found = find_leftovers(home)?;
    let has_relay = place::kind(home) != Kind::Managed;
    for (_, process) in found.iter().rev().filter(|(name, _)| has_relay || name != "postgres") {
        process.signal(Signal::Terminate);
        if !process.wait_gone(Duration::from_secs(2)) {
            signal_group(process.pid, Signal::Kill);
            process.signal(Signal::Kill);
            process.wait_gone(Duration::from_secs(2));
        }
    }
    leftovers::end(home)?;
    let mut names: Vec<String> = found.into_iter().map(|(name, _)| name).collect();
    names.dedup();
    Ok(names)
}
