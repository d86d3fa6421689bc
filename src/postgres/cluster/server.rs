//! The command that starts the datastore: the postmaster, or for a container or an external server the relay. The
//! postmaster gets all settings on its command line, so that neither a file nor `ALTER SYSTEM` can override them.

use crate::install::tools::clean_environment;
use crate::location::{self, Kind};
use crate::{Endpoint, Installation, SOCKET_PORT};
use leoflow_base::home::Home;
use leoflow_base::protocol::child;
use leoflow_base::sys::env_vars;
use leoflow_base::sys::process::user_namespace::Identity;
use std::ffi::OsString;
use std::path::PathBuf;

/// The program to execute.
pub struct ServerCommand {
    pub program: PathBuf,
    /// `argv[0]` if it differs from the program.
    pub argv0: Option<OsString>,
    pub arguments: Vec<OsString>,
    pub environment: Vec<(OsString, OsString)>,
    /// False for PostgreSQL itself, which refuses to run as root.
    pub may_run_as_root: bool,
}

impl ServerCommand {
    /// User to run as.
    pub fn identity(&self) -> Identity {
        if self.may_run_as_root { Identity::Own } else { Identity::for_postgres() }
    }
}

/// Durable like PostgreSQL's defaults and sized for a laptop: one local application, no replication, no idle workers.
/// Meanings: PostgreSQL 18 manual, chapter 19.
const SETTINGS: &[(&str, &str)] = &[
    ("listen_addresses", ""),
    ("unix_socket_permissions", "0700"),
    ("max_connections", "60"),
    ("shared_buffers", "64MB"),
    ("huge_pages", "off"),
    ("io_method", "sync"),
    ("jit", "off"),
    // Parallel workers exchange data through /dev/shm, which may be small or full, and gain nothing at this size.
    ("max_parallel_workers_per_gather", "0"),
    ("max_parallel_maintenance_workers", "0"),
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

/// Builds the command for the home's kind of datastore.
pub fn command(home: &Home, installation: &Installation, endpoint: &Endpoint) -> ServerCommand {
    match location::kind(home) {
        Kind::Managed => postmaster(home, installation, endpoint),
        Kind::Docker | Kind::External => relay(home),
    }
}

fn relay(home: &Home) -> ServerCommand {
    ServerCommand {
        program: env_vars::running_program().to_owned(),
        argv0: Some("leoflow".into()),
        arguments: vec!["--home".into(), home.root().into(), "datastore-relay".into()],
        // The URL may be in an environment variable.
        environment: child::environment(),
        may_run_as_root: true,
    }
}

fn postmaster(home: &Home, installation: &Installation, endpoint: &Endpoint) -> ServerCommand {
    let folder = endpoint.socket_folder.to_string_lossy().replace('"', "\"\"");
    let mut arguments: Vec<OsString> = vec!["-D".into(), home.postgres_data().into()];
    let mut set = |name: &str, value: &str| {
        arguments.push("-c".into());
        arguments.push(format!("{name}={value}").into());
    };
    for (name, value) in SETTINGS {
        set(name, value);
    }
    set("dynamic_shared_memory_type", super::shared_memory_type());
    set("port", &SOCKET_PORT.to_string());
    set("unix_socket_directories", &format!("\"{folder}\""));
    let environment = clean_environment().into_iter().map(|(name, value)| (name.into(), value.into()));
    ServerCommand {
        program: installation.program("postgres"),
        argv0: None,
        arguments,
        environment: environment.collect(),
        may_run_as_root: false,
    }
}
