//! Runs SQL without starting `psql`, over a connection to the datastore's socket. The connection is closed after each
//! use: an open one would block copies and renames of the database.

use leoflow::postgres::{Credentials, Endpoint};
use std::path::Path;
use tokio::runtime::Runtime;
use tokio_postgres::{Client, SimpleQueryMessage};

/// A connection with the runtime that drives it.
struct Connection {
    client: Client,
    runtime: Runtime,
}

impl Connection {
    /// Returns `None` if the datastore of this home does not listen: it is stopped, external, or starting.
    fn open(home: &Path) -> Option<Self> {
        let home = leoflow::home::resolve(Some(home)).ok()?;
        let endpoint = Endpoint::for_home(&home);
        if !endpoint.socket_folder.join(".s.PGSQL.5432").exists() {
            return None;
        }
        let credentials = Credentials::load(&home).ok()??;
        let login = &credentials.application;
        let config = endpoint.config(&login.role, &login.password, &login.database);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = runtime.block_on(endpoint.connect(&config)).ok()?;
        Some(Self { client, runtime })
    }

    fn query(&self, text: &str) -> Result<Vec<SimpleQueryMessage>, tokio_postgres::Error> {
        self.runtime.block_on(self.client.simple_query(text))
    }
}

/// An open transaction with a lock; the lock is released when this is dropped.
pub struct HeldLock(Connection);

impl HeldLock {
    /// Runs the statement that takes the lock.
    pub fn take(home: &Path, statement: &str) -> Self {
        let connection = Connection::open(home).expect("a running datastore");
        connection.query(&format!("BEGIN; {statement}")).unwrap();
        Self(connection)
    }

    /// Asserts that nothing has ended the transaction.
    #[track_caller]
    pub fn assert_held(&self) {
        self.0.query("SELECT 1").expect("the transaction is open");
    }
}

/// Returns the rows as `psql -A -t` prints them: columns separated by `|`, rows by line feeds, NULL as nothing.
/// `None` if the datastore of this home does not listen.
pub fn query(home: &Path, text: &str) -> Option<Result<String, tokio_postgres::Error>> {
    match Connection::open(home)?.query(text) {
        Ok(messages) => Some(Ok(rows(&messages))),
        // The server closed the connection because it is stopping.
        Err(error) if error.as_db_error().is_none() => None,
        Err(error) => Some(Err(error)),
    }
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
