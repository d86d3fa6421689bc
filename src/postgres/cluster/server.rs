//! The command that starts the datastore: the postmaster, or for a container or an external server the relay. The
//! postmaster gets all settings on its command line, so that neither a file nor `ALTER SYSTEM` can override them.

use crate::install::tools::clean_environment;
use crate::location::{self, Kind};
use crate::{Endpoint, Installation, SETTINGS, SOCKET_PORT};
use leoflow_base::home::Home;
use leoflow_base::protocol::child;
use leoflow_base::sys::env_vars;
use leoflow_base::sys::fs::disk;
use leoflow_base::sys::process::Signal;
use leoflow_base::sys::process::spawn::Spawn;
use leoflow_base::sys::process::user_namespace::Identity;
use std::ffi::OsString;

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

/// The process for the home's kind of datastore, which gets a signal when the thread that starts it ends, and the user
/// that it runs as: PostgreSQL itself refuses to run as root.
pub fn command(home: &Home, installation: &Installation, endpoint: &Endpoint) -> (Spawn<'static>, Identity) {
    let (spawn, identity) = match location::kind(home) {
        Kind::Managed => (postmaster(home, installation, endpoint), Identity::for_postgres()),
        Kind::Docker | Kind::External => (relay(home), Identity::Own),
    };
    let single_user = identity.single_user().cloned();
    (Spawn { single_user, parent_death: Some(Signal::Interrupt), ..spawn }, identity)
}

fn relay(home: &Home) -> Spawn<'static> {
    Spawn {
        argv0: Some("leoflow".into()),
        arguments: vec!["--home".into(), home.root().into(), "datastore-relay".into()],
        // The URL may be in an environment variable.
        environment: child::environment(),
        ..Spawn::new(env_vars::running_program())
    }
}

fn postmaster(home: &Home, installation: &Installation, endpoint: &Endpoint) -> Spawn<'static> {
    let folder = endpoint.socket_folder.to_string_lossy().replace('"', "\"\"");
    let mut arguments: Vec<OsString> = vec!["-D".into(), home.postgres_data().into()];
    let of_machine = [
        format!("dynamic_shared_memory_type={}", super::shared_memory_type()),
        format!("port={SOCKET_PORT}"),
        format!("unix_socket_directories=\"{folder}\""),
    ];
    let flush = disk::flush_stops_at_drive().then_some("wal_sync_method=fsync_writethrough");
    let settings = SETTINGS
        .iter()
        .chain(&SERVER_SETTINGS)
        .copied()
        .chain(flush)
        .map(OsString::from)
        .chain(of_machine.map(OsString::from));
    arguments.extend(settings.flat_map(|setting| ["-c".into(), setting]));
    let environment = clean_environment().into_iter().map(|(name, value)| (name.into(), value.into()));
    Spawn { arguments, environment: environment.collect(), ..Spawn::new(installation.program("postgres")) }
}
