//! Chooses the port of a new instance, so that all instances can run side by side.

use leoflow_base::config::{self, DEFAULT_PORT};
use leoflow_base::home::{Home, all_instances, instances};
use leoflow_base::sys::net::listener;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// Highest port that is tried.
const LAST_PORT: u16 = 8999;

/// Returns a free port that no other instance uses. The default port is reserved for the default instance, but is also
/// returned when no other port is free.
pub fn own_port(home: &Home) -> u16 {
    if instances::name_of(home).is_none_or(|name| name == instances::DEFAULT) {
        return DEFAULT_PORT;
    }
    let used_ports: BTreeSet<u16> = all_instances()
        .into_iter()
        .filter(|(_, other)| other != home)
        .filter_map(|(_, other)| Some(config::load_files(&other.config()).ok()??.config.port))
        .collect();
    let is_free = |port: &u16| !used_ports.contains(port) && listener::bind_at(Ipv4Addr::LOCALHOST, *port).is_ok();
    (DEFAULT_PORT + 1..=LAST_PORT).find(is_free).unwrap_or(DEFAULT_PORT)
}
