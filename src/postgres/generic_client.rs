//! Queries of a connection or a transaction, prepared once by each connection.

use deadpool_postgres::{ClientWrapper, StatementCache, Transaction};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Row};

type Parameters<'a> = &'a [&'a (dyn ToSql + Sync)];

/// Statements that a connection keeps. There are fewer of them in the program, but some are put together, in more
/// ways than a process of Postgres should remember.
const MOST_STATEMENTS: usize = 200;

/// What can be asked, of both alike.
pub trait GenericClient: Sync {
    fn query(&self, query: &str, parameters: Parameters<'_>) -> impl Future<Output = Result<Vec<Row>, Error>> + Send;
    /// An error when there is not exactly one row.
    fn query_one(&self, query: &str, parameters: Parameters<'_>) -> impl Future<Output = Result<Row, Error>> + Send;
    /// An error when there is more than one row.
    fn query_opt(
        &self,
        query: &str,
        parameters: Parameters<'_>,
    ) -> impl Future<Output = Result<Option<Row>, Error>> + Send;
    /// Returns the number of rows that it has changed.
    fn execute(&self, query: &str, parameters: Parameters<'_>) -> impl Future<Output = Result<u64, Error>> + Send;
}

/// Whether its columns stay the same when a release adds some to its tables, which it does while the one before it
/// still serves: a kept statement whose columns changed is refused.
fn has_fixed_columns(query: &str) -> bool {
    !["SELECT *", "RETURNING *", ".*"].iter().any(|all| query.contains(all))
}

fn make_room(statements: &StatementCache) {
    if statements.size() >= MOST_STATEMENTS {
        statements.clear();
    }
}

macro_rules! with_kept_statements {
    (@ $client:ty: $($name:ident -> $output:ty),*) => {
        impl GenericClient for $client {
            $(async fn $name(&self, query: &str, parameters: Parameters<'_>) -> Result<$output, Error> {
                if !has_fixed_columns(query) {
                    return (**self).$name(query, parameters).await;
                }
                make_room(&self.statement_cache);
                (**self).$name(&self.prepare_cached(query).await?, parameters).await
            })*
        }
    };
    ($($client:ty),*) => {$(
        with_kept_statements!(@ $client: query -> Vec<Row>, query_one -> Row, query_opt -> Option<Row>, execute -> u64);
    )*};
}

with_kept_statements!(ClientWrapper, Transaction<'_>);
