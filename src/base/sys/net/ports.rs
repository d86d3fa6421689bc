//! Finds the owners of TCP ports in `/proc`.

use crate::sys::process;
use std::fs;

/// Pid and arguments of a process that listens on `port`; several may share the socket. `None` when there is none, or
/// when it belongs to another user, whose descriptors we may not read.
pub fn listening_process(port: u16) -> Option<(i32, Vec<String>)> {
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| listening_inodes(&table, port))
        .collect();
    if inodes.is_empty() {
        return None;
    }
    let pid = process::all_pids().find(|pid| holds_one_of(*pid, &inodes))?;
    Some((pid, process::arguments(pid)?))
}

/// The sockets that listen on `port`, as `socket:[INODE]`. Columns as in proc_net_tcp(5): local address in the second,
/// state in the fourth (0A is listening), inode in the tenth.
fn listening_inodes(table: &str, port: u16) -> Vec<String> {
    let suffix = format!(":{port:04X}");
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let columns: Vec<&str> = line.split_ascii_whitespace().collect();
            let listens = columns.get(1)?.ends_with(&suffix) && *columns.get(3)? == "0A";
            listens.then(|| columns.get(9).map(|inode| format!("socket:[{inode}]")))?
        })
        .collect()
}

/// True when a process has one of these sockets open.
fn holds_one_of(pid: i32, inodes: &[String]) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    descriptors
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .any(|target| inodes.iter().any(|inode| target.as_os_str() == inode.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_process_that_listens() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(listening_process(port).unwrap().0, std::process::id() as i32);
        drop(listener);
        assert_eq!(listening_process(port), None);
    }
}
