//! The agent process and the relay. The supervisor gets the error that ends the agent as JSON.

use crate::context::Context;
use crate::error::Error;
use leoflow_base::protocol::child::Inheritance;
use leoflow_base::protocol::log;
use leoflow_postgres::external::relay;
use leoflow_processes::agent;

/// Runs the agent until the supervisor stops it.
pub async fn agent(context: &Context<'_>) -> Result<u8, Error> {
    log::start("agent", context.log_level());
    let inheritance = Inheritance::take().map_err(Error::failed)?;
    let notifier = inheritance.notifier();
    let ended = agent::run(&context.home, inheritance).await;
    ended.map(|()| 0).map_err(Error::from).inspect_err(|error| notifier.failure(&error.to_json()))
}

/// Runs the relay, which forwards local connections to an external datastore.
pub async fn relay(context: &Context<'_>) -> Result<u8, Error> {
    log::start("postgres", context.log_level());
    relay::run(&context.home).await.map(|()| 0).map_err(Error::failed)
}
