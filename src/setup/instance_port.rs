//! The port of a new instance: one of its own, so that all of them can run beside one another.

use crate::config::{self, DEFAULT_PORT};
use crate::home::{Home, all_instances, instances};
use crate::sys::listener;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

const LAST: u16 = 8999;

/// That of the usual instance is for it alone, whether it is there or not. The usual one again where none is free.
pub fn own_port(home: &Home) -> u16 {
    if instances::name_of(home).is_none_or(|name| name == instances::DEFAULT) {
        return DEFAULT_PORT;
    }
    let taken: BTreeSet<u16> = all_instances()
        .into_iter()
        .filter(|(_, other)| other != home)
        .filter_map(|(_, other)| Some(config::load_files(&other.config()).ok()??.config.port))
        .collect();
    let is_free = |port: &u16| !taken.contains(port) && listener::bind_at(Ipv4Addr::LOCALHOST, *port).is_ok();
    (DEFAULT_PORT + 1..=LAST).find(is_free).unwrap_or(DEFAULT_PORT)
}
