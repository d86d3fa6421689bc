//! The server and agent processes. The error that ends one is sent to the supervisor as JSON.

use crate::agent;
use crate::cli::args::Server;
use crate::commands::context::Context;
use crate::error::Error;
use crate::postgres::relay;
use crate::protocol::child::Inheritance;
use crate::protocol::log;
use crate::server::{self, Options};

/// Runs the server until the supervisor stops it.
pub async fn server(context: &Context<'_>, args: &Server) -> Result<u8, Error> {
    log::start("server", context.log_level());
    let inheritance = Inheritance::take().map_err(Error::failed)?;
    let notifier = inheritance.notifier();
    let options =
        Options { port: args.port, database: args.database.clone(), private_socket: args.private_socket.clone() };
    let ended = server::run(&context.home, options, inheritance, context.version).await;
    ended.map(|()| 0).map_err(|error| send_failure(&notifier, error.into()))
}

/// Runs the agent until the supervisor stops it.
pub async fn agent(context: &Context<'_>) -> Result<u8, Error> {
    log::start("agent", context.log_level());
    let inheritance = Inheritance::take().map_err(Error::failed)?;
    let notifier = inheritance.notifier();
    let ended = agent::run(&context.home, inheritance).await;
    ended.map(|()| 0).map_err(|error| send_failure(&notifier, error.into()))
}

/// Runs the relay, which forwards local connections to an external datastore.
pub async fn relay(context: &Context<'_>) -> Result<u8, Error> {
    log::start("postgres", context.log_level());
    relay::run(&context.home).await.map(|()| 0).map_err(Error::failed)
}

fn send_failure(notifier: &crate::protocol::child::Notifier, error: Error) -> Error {
    notifier.failure(&error.to_json());
    error
}
