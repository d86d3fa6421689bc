//! `leoflow server`, the server process.

use crate::context::Context;
use crate::error::Error;
use clap::Args;
use std::path::PathBuf;

#[derive(Args, Debug)]
pub struct Server {
    /// The port of the TCP listener
    #[arg(long)]
    pub port: u16,
    /// The database to serve, for a rehearsal [default: the instance's own]
    #[arg(long)]
    pub database: Option<String>,
    /// The path of the listener named `private`
    #[arg(long, value_name = "PATH")]
    pub private_socket: Option<PathBuf>,
}

/// Runs the server process. The binary implements this trait, because this crate does not depend on the server crate.
pub trait ServerProcess {
    fn run(&self, context: &Context<'_>, args: &Server) -> impl Future<Output = Result<u8, Error>>;
}
