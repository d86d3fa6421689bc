//! Runs SQL without starting `psql`, over a connection to the datastore's socket. The connection is closed after each
//! use: an open one would block copies and renames of the database.

use leoflow::postgres::{Credentials, Endpoint};
use std::path::Path;
use tokio_postgres::SimpleQueryMessage;

/// Returns the rows as `psql -A -t` prints them: columns separated by `|`, rows by line feeds, NULL as nothing.
/// `None` if the datastore of this home does not listen: it is stopped, external, or starting.
pub fn query(home: &Path, text: &str) -> Option<Result<String, tokio_postgres::Error>> {
    let home = leoflow::home::resolve(Some(home)).ok()?;
    let endpoint = Endpoint::for_home(&home);
    if !endpoint.socket_folder.join(".s.PGSQL.5432").exists() {
        return None;
    }
    let credentials = Credentials::load(&home).ok()??;
    let login = &credentials.application;
    let config = endpoint.config(&login.role, &login.password, &login.database);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = endpoint.connect(&config).await.ok()?;
        match client.simple_query(text).await {
            Ok(messages) => Some(Ok(rows(&messages))),
            // The server closed the connection because it is stopping.
            Err(error) if error.as_db_error().is_none() => None,
            Err(error) => Some(Err(error)),
        }
    })
}

fn rows(messages: &[SimpleQueryMessage]) -> String {
    let row = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => {
            let columns: Vec<&str> = (0..row.len()).map(|column| row.get(column).unwrap_or_default()).collect();
            Some(columns.join("|"))
        }
        _ => None,
    };
    messages.iter().filter_map(row).collect::<Vec<_>>().join("\n")
}
