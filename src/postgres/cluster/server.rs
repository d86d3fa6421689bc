//! The command that starts the datastore: the postmaster, or for a container or an external server the relay. The
//! postmaster gets all settings on its command line, so that neither a file nor `ALTER SYSTEM` can override them.

use crate::install::tools::clean_environment;
use crate::location::{self, Kind};
use crate::{Endpoint, Installation, SETTINGS, SOCKET_PORT};
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

/// Durable like PostgreSQL's defaults: one local application, no replication, no idle workers. Meanings: PostgreSQL 18
/// manual, chapter 19.
const SERVER_SETTINGS: [&str; 16] = [
    "listen_addresses=",
    "unix_socket_permissions=0700",
    "io_method=sync",
    "fsync=on",
    "full_page_writes=on",
    "synchronous_commit=on",
    "wal_level=minimal",
    "max_wal_senders=0",
    "max_logical_replication_workers=0",
    "password_encryption=scram-sha-256",
    "log_timezone=UTC",
    "log_destination=stderr",
    "logging_collector=off",
    "log_checkpoints=off",
    "log_line_prefix=%m [%p] ",
    "restart_after_crash=on",
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
    let of_machine = [
        format!("dynamic_shared_memory_type={}", super::shared_memory_type()),
        format!("port={SOCKET_PORT}"),
        format!("unix_socket_directories=\"{folder}\""),
    ];
    let settings = SETTINGS.iter().chain(&SERVER_SETTINGS).map(OsString::from).chain(of_machine.map(OsString::from));
    arguments.extend(settings.flat_map(|setting| ["-c".into(), setting]));
    let environment = clean_environment().into_iter().map(|(name, value)| (name.into(), value.into()));
    ServerCommand {
        program: installation.program("postgres"),
        argv0: None,
        arguments,
        environment: environment.collect(),
        may_run_as_root: false,
    }
}
