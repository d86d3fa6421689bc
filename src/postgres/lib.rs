//! The datastore: PostgreSQL's files, the cluster, and connections. Only this crate may assume that Leoflow manages
//! the server; the others use an endpoint and a role.

mod access;
pub mod acquire;
pub mod cluster;
pub mod connect;
pub mod credentials;
pub mod database_attributes;
pub mod databases;
mod error;
pub mod external;
pub mod fatal_message;
mod generic_client;
pub mod identifier;
pub mod install;
pub mod instance_fact;
pub mod location;
pub mod locks;
pub mod schema;
pub mod totals;

pub use access::Access;
pub use connect::Endpoint;
pub use credentials::{Credentials, Login};
pub use error::{LockHolder, PgError};
pub use generic_client::GenericClient;
pub use install::Installation;

/// Supported major version; data directories of others are refused.
pub const MAJOR: u32 = 18;
/// Newest minor version known to this release, as reported by the server.
pub const NEWEST: &str = "18.6";
/// Version of the downloaded build, in its publisher's numbering.
pub const DOWNLOAD_VERSION: &str = "18.6.0";
/// sha256 of the build's archive by target, as published with the release; other targets are not downloaded.
pub(crate) const DOWNLOAD_SHA256: &[(&str, &str)] = &[
    ("x86_64-unknown-linux-gnu", "bb3d09f876b2383e25a8c9ce09e32d185a03656a23d074f5195542b1b1b3ca61"),
    ("aarch64-unknown-linux-gnu", "5d2b5e8be9e96bfc3d7f22090057a836ec36d5d092542d8d3b93cc145cf4ee13"),
    ("x86_64-apple-darwin", "f8918fbe747e0d79bda58ad8f8afcf23ac384b847ff3af18856f0825ba54b031"),
    ("aarch64-apple-darwin", "a257bcdb8aa3301a13d6a5bcec48f8c9517045b7cbae71e50788b2615539e95b"),
];

/// The application's role and database.
pub const APPLICATION_ROLE: &str = "leoflow";
pub const APPLICATION_DATABASE: &str = "leoflow";
/// The role for maintenance; never used on restored content.
pub const SUPERUSER: &str = "postgres";
/// Part of the socket's file name; no TCP port is opened.
pub const SOCKET_PORT: u16 = 5432;
/// Options of initdb for every cluster of ours.
const INITDB: &str = "--data-checksums --encoding=UTF8 --locale=C --locale-provider=builtin --builtin-locale=C.UTF-8 \
    -c huge_pages=off";
/// Settings of every server of ours, sized for a laptop. Parallel workers exchange data through /dev/shm, which may be
/// small or full, and gain nothing at this size. In a container that may not use the machine's huge pages, touching one
/// kills the server with SIGBUS, and `try`, the default, does not detect that. Source:
/// <https://www.postgresql.org/docs/18/runtime-config-resource.html#GUC-HUGE-PAGES>.
const SETTINGS: [&str; 8] = [
    "max_connections=60",
    "shared_buffers=16MB",
    "jit=off",
    "max_parallel_workers_per_gather=0",
    "max_parallel_maintenance_workers=0",
    "max_wal_size=512MB",
    "timezone=UTC",
    "huge_pages=off",
];
