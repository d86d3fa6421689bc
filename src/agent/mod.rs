//! The agent: claims task instances and runs them. Until there are any it checks the schema, says
//! that it is ready, and waits.

use crate::home::Home;
use crate::postgres::credentials::CredentialsError;
use crate::postgres::{Credentials, Endpoint};
use crate::protocol::child::{Inheritance, keep_saying_alive};
use crate::schema::{self, SchemaError};
use std::io;

#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    #[error(transparent)]
    Schema(#[from] SchemaError),
}

/// Runs until told to leave.
pub async fn run(home: &Home, mut inheritance: Inheritance) -> Result<(), AgentError> {
    let leave = inheritance.until_told_to_leave()?;
    let notifier = inheritance.notifier();
    let endpoint = Endpoint::for_home(home);
    let credentials = Credentials::require(home)?;
    let check = async {
        let client = endpoint.connect(&credentials.application(&endpoint)).await.map_err(SchemaError::from)?;
        schema::require_current(&client, schema::known()).await
    };
    tokio::pin!(leave);
    tokio::select! {
        () = &mut leave => return Ok(()),
        checked = check => drop(checked?),
    }
    notifier.ready("idle");
    let alive = tokio::task::spawn_local(keep_saying_alive(notifier.clone()));
    leave.await;
    notifier.stopping();
    alive.abort();
    Ok(())
}
