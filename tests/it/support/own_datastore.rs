//! A home's datastore that the test process starts itself, to test migrations without starting the CLI for each step.

use super::TestHome;
use leoflow::postgres::cluster::private::PrivateServer;
use leoflow::postgres::cluster::provision;
use leoflow::postgres::{Credentials, Endpoint, install};
use leoflow::schema::{self, Applied, EmbeddedMigration, Extent, SchemaError};
use tokio_postgres::{Client, SimpleQueryMessage};

pub struct Datastore {
    _server: PrivateServer,
    endpoint: Endpoint,
    credentials: Credentials,
}

impl Datastore {
    pub async fn start(test: &TestHome) -> Self {
        test.first_setup();
        let home = leoflow::home::resolve(Some(&test.home)).unwrap();
        let (endpoint, credentials) = (Endpoint::for_home(&home), Credentials::require(&home).unwrap());
        let installation = install::installed(&home).unwrap();
        let server = PrivateServer::start(&home, &installation, &endpoint, &credentials).await.unwrap();
        Self { _server: server, endpoint, credentials }
    }

    pub async fn connect(&self) -> Client {
        provision::connect(&self.endpoint, &self.credentials).await.unwrap()
    }

    pub async fn migrate(&self, known: &[EmbeddedMigration]) -> Result<Applied, SchemaError> {
        let (lock, mut client) = (self.connect().await, self.connect().await);
        schema::migrate(&lock, &mut client, known, "test", &mut |_| {}).await
    }

    /// Undoes every migration above `version`, if there are any.
    pub async fn roll_back(&self, version: i64) {
        let (lock, mut client) = (self.connect().await, self.connect().await);
        match schema::rollback(&lock, &mut client, Extent::DownTo(version), &mut |_| {}).await {
            Ok(_) | Err(SchemaError::NothingToUndo) => {}
            Err(error) => panic!("roll back to {version}: {error}"),
        }
    }

    /// Returns the rows as `psql -A -t` prints them.
    pub async fn sql(&self, text: &str) -> String {
        let messages =
            self.connect().await.simple_query(text).await.unwrap_or_else(|error| panic!("{text}: {error:?}"));
        let row = |message: &SimpleQueryMessage| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|column| row.get(column).unwrap_or_default()).collect::<Vec<_>>().join("|"))
            }
            _ => None,
        };
        messages.iter().filter_map(row).collect::<Vec<_>>().join("\n")
    }
}

/// Runs a test on one thread: the kernel kills the server when the thread that started it ends (PDEATHSIG).
pub fn run(test: impl AsyncFnOnce()) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(test());
}
