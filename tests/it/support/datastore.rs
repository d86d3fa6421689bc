//! Runs SQL without starting `psql`, over a connection to the datastore's socket. The connection is closed after each
//! use, or at the end of a wait: an open one would block copies and renames of the database.

use leoflow::postgres::{Credentials, Endpoint};
use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
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
        // Where a killed command leaves its datastore running, only a command brings the home into order first.
        if leoflow::sys::is_portable() && leoflow::protocol::control::status_of(&home).is_none() {
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

thread_local! {
    /// Number of waits in progress in this thread.
    static WAITS: Cell<u32> = const { Cell::new(0) };
    /// The connection that this thread's waits keep, with its home.
    static WAIT_CONNECTION: RefCell<Option<(PathBuf, Connection)>> = const { RefCell::new(None) };
}

/// While this exists, reading queries of the thread share a connection: PostgreSQL starts a process for each one, which
/// takes 8 ms of processor time, and a wait makes many queries.
pub struct Wait(());

impl Wait {
    pub fn begin() -> Self {
        WAITS.set(WAITS.get() + 1);
        Self(())
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        WAITS.set(WAITS.get() - 1);
        if WAITS.get() == 0 {
            close_wait_connection();
        }
    }
}

/// Closes the connection of this thread's waits.
pub fn close_wait_connection() {
    WAIT_CONNECTION.take();
}

/// Runs a query over the connection of this thread's waits. `None` if there is none for this home, or if the server has
/// closed it.
fn query_in_wait(home: &Path, text: &str) -> Option<Result<Vec<SimpleQueryMessage>, tokio_postgres::Error>> {
    let (its_home, connection) = WAIT_CONNECTION.take().filter(|(its_home, _)| its_home == home)?;
    let answer = connection.query(text);
    match &answer {
        Ok(_) => WAIT_CONNECTION.set(Some((its_home, connection))),
        Err(error) if error.as_db_error().is_none() => return None,
        Err(_) => {}
    }
    Some(answer)
}

/// Returns the rows as `psql -A -t` prints them: columns separated by `|`, rows by line feeds, NULL as nothing.
/// `None` if the datastore of this home does not listen. During a wait, a reading query keeps its connection if
/// `may_keep`; only this thread closes it.
pub fn query(home: &Path, text: &str, may_keep: bool) -> Option<Result<String, tokio_postgres::Error>> {
    let keeps = may_keep && WAITS.get() > 0 && text.trim_start().starts_with("SELECT");
    if keeps && let Some(answer) = query_in_wait(home, text) {
        return Some(answer.map(|messages| rows(&messages)));
    }
    let connection = Connection::open(home)?;
    match connection.query(text) {
        Ok(messages) => {
            if keeps {
                WAIT_CONNECTION.set(Some((home.to_owned(), connection)));
            }
            Some(Ok(rows(&messages)))
        }
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
