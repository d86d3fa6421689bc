//! The datastore: finding PostgreSQL's files, making the cluster, and talking to it. Only this
//! module may assume that the server is ours; above it there is an endpoint and a role.

mod access;
pub mod acquire;
pub mod archive;
pub mod claim;
pub mod cluster;
pub mod connect;
pub mod container;
pub mod credentials;
mod download;
mod generic_client;
pub mod install;
pub mod instance_fact;
pub mod leftovers;
pub mod place;
pub mod private;
pub mod provision;
pub mod relay;
pub mod rights;
pub mod server;
mod system;
mod tls;
pub mod tools;
pub mod wheel;
pub mod words;

pub use access::Access;
pub use connect::{Endpoint, PgError};
pub use credentials::{Credentials, Login};
pub use generic_client::GenericClient;
pub use install::Installation;

/// The major version that this release runs; a data directory of another one is refused.
pub const MAJOR: u32 = 18;
/// The build that is downloaded, numbered as its publisher does (18.4 is 18.4.0 there).
pub const DOWNLOAD_VERSION: &str = "18.4.0";

/// The role that the application uses, and its database.
pub const APPLICATION_ROLE: &str = "leoflow";
pub const APPLICATION_DATABASE: &str = "leoflow";
/// For our own upkeep; never used on content that was restored.
pub const SUPERUSER: &str = "postgres";
/// Names the socket file; no TCP port is opened.
pub const SOCKET_PORT: u16 = 5432;
