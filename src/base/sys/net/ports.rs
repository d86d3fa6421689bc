//! Finds the owners of TCP ports and connections in `/proc`.

use crate::sys::process;
use std::fs;
use std::net::{IpAddr, SocketAddr};

/// Pid and command line of the process that listens on `port`. `None` when there is none, or when it belongs to another
/// user, whose descriptors we may not read.
pub fn listening_process(port: u16) -> Option<(i32, String)> {
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| listening_inodes(&table, port))
        .collect();
    if inodes.is_empty() {
        return None;
    }
    let pid = process::all_pids().find(|pid| holds_one_of(*pid, &inodes))?;
    Some((pid, process::command_line(pid)?))
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

/// The user of the process at the other end of a local connection. `None` when the kernel does not list it (any
/// longer).
pub fn uid_of_client(client: SocketAddr, server: SocketAddr) -> Option<u32> {
    let table = if client.is_ipv4() { "/proc/net/tcp" } else { "/proc/net/tcp6" };
    let (local, remote) = (table_format(client), table_format(server));
    let text = fs::read_to_string(table).ok()?;
    text.lines().skip(1).find_map(|line| {
        let columns: Vec<&str> = line.split_ascii_whitespace().collect();
        let is_match = *columns.get(1)? == local && *columns.get(2)? == remote;
        is_match.then(|| columns.get(7)?.parse().ok())?
    })
}

/// Formats an address as in the kernel's tables: words in native byte order.
fn table_format(address: SocketAddr) -> String {
    let word = |part: &[u8]| format!("{:08X}", u32::from_ne_bytes([part[0], part[1], part[2], part[3]]));
    let ip: String = match address.ip() {
        IpAddr::V4(ip) => word(&ip.octets()),
        IpAddr::V6(ip) => ip.octets().chunks(4).map(word).collect(),
    };
    format!("{ip}:{:04X}", address.port())
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
    fn names_the_user_at_the_other_end() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (own, server) = (client.local_addr().unwrap(), listener.local_addr().unwrap());
        assert_eq!(uid_of_client(own, server), Some(crate::sys::user::effective_uid()));
        assert_eq!(uid_of_client("127.0.0.1:1".parse().unwrap(), server), None);
    }

    #[test]
    fn names_the_process_that_listens() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(listening_process(port).unwrap().0, std::process::id() as i32);
        drop(listener);
        assert_eq!(listening_process(port), None);
    }
}
