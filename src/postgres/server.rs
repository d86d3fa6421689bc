//! How the postmaster is started: directly, with every setting on its command line, where neither
//! a file nor `ALTER SYSTEM` can change it.

use super::tools::clean_environment;
use super::{Endpoint, Installation, SOCKET_PORT};
use crate::home::Home;
use std::ffi::OsString;
use std::path::PathBuf;

/// What to execute.
pub struct ServerCommand {
    pub program: PathBuf,
    pub arguments: Vec<OsString>,
    pub environment: Vec<(OsString, OsString)>,
}

/// Durable as Postgres is by default, and sized for a laptop: one local application, no
/// replication, nothing running that would only wait. Meanings: PostgreSQL 18 manual, chapter 19.
const SETTINGS: &[(&str, &str)] = &[
    ("listen_addresses", ""),
    ("unix_socket_permissions", "0700"),
    ("max_connections", "60"),
    ("shared_buffers", "64MB"),
    ("huge_pages", "off"),
    ("io_method", "sync"),
    ("jit", "off"),
    ("fsync", "on"),
    ("full_page_writes", "on"),
    ("synchronous_commit", "on"),
    ("wal_level", "minimal"),
    ("max_wal_senders", "0"),
    ("max_wal_size", "512MB"),
    ("max_logical_replication_workers", "0"),
    ("password_encryption", "scram-sha-256"),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
    ("log_destination", "stderr"),
    ("logging_collector", "off"),
    ("log_checkpoints", "off"),
    ("log_line_prefix", "%m [%p] "),
    ("restart_after_crash", "on"),
];

pub fn command(home: &Home, installation: &Installation, endpoint: &Endpoint) -> ServerCommand {
    let folder = endpoint.socket_folder.to_string_lossy().replace('"', "\"\"");
    let mut arguments: Vec<OsString> = vec!["-D".into(), home.postgres_data().into()];
    let mut set = |name: &str, value: &str| {
        arguments.push("-c".into());
        arguments.push(format!("{name}={value}").into());
    };
    for (name, value) in SETTINGS {
        set(name, value);
    }
    set("port", &SOCKET_PORT.to_string());
    set("unix_socket_directories", &format!("\"{folder}\""));
    let environment = clean_environment().into_iter().map(|(name, value)| (name.into(), value.into()));
    ServerCommand { program: installation.program("postgres"), arguments, environment: environment.collect() }
}
