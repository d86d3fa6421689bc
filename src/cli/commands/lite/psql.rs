//! `leoflow lite psql`.

use crate::context::Context;
use crate::error::Error;
use clap::Args;
use leoflow_base::sys::process::reaper::Exit;
use leoflow_base::sys::{env_vars, process};
use leoflow_lifecycle::operation::open::Datastore;
use leoflow_postgres::SOCKET_PORT;
use leoflow_postgres::external::scram;
use std::process::Command;

#[derive(Args, Debug)]
pub struct Psql {
    /// Arguments for psql, passed unchanged
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub arguments: Vec<std::ffi::OsString>,
}

pub async fn run(context: &Context<'_>, args: &Psql) -> Result<u8, Error> {
    let datastore = Datastore::open(&context.operation(), "leoflow lite psql").await?;
    drop(datastore.connect().await?);
    let login = datastore.access.application();
    let program = datastore.access.installation.program("psql");
    let mut command = Command::new(&program);
    // Keep the user's psql settings and history, but no PG* variable that selects another server.
    for (name, _) in env_vars::all() {
        if name.to_string_lossy().starts_with("PG") {
            command.env_remove(name);
        }
    }
    command
        .env("PGHOST", &datastore.access.endpoint.socket_folder)
        .env("PGPORT", SOCKET_PORT.to_string())
        .env("PGUSER", &login.role)
        .env("PGDATABASE", &login.database)
        // The password is not in argv, which every user of the machine can read.
        .env("PGPASSWORD", &login.password)
        .args(&args.arguments);
    if datastore.access.credentials.requires_scram() {
        command.env("PGREQUIREAUTH", scram::METHOD);
    }
    // Ctrl-C is for psql, where it cancels a query.
    let status = process::ignoring_interrupts(|| command.status());
    let status = status.map_err(Error::cannot("run", &program))?;
    match Exit::from(status) {
        Exit::Code(code) => Ok(u8::try_from(code).unwrap_or(1)),
        exit => Err(Error::failed(format!("psql was terminated by {exit}"))),
    }
}
