//! Queries on a connection or a transaction, with statements prepared once per connection.

use deadpool_postgres::{ClientWrapper, StatementCache, Transaction};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Row};

type Parameters<'a> = &'a [&'a (dyn ToSql + Sync)];

/// Limit of cached statements per connection. Some statements are composed at run time, in more variants than a
/// PostgreSQL backend should cache.
const MAX_STATEMENTS: usize = 200;

/// Queries common to connections and transactions.
pub trait GenericClient: Sync {
    fn query(&self, query: &str, parameters: Parameters<'_>) -> impl Future<Output = Result<Vec<Row>, Error>> + Send;
    /// Fails unless exactly one row is returned.
    fn query_one(&self, query: &str, parameters: Parameters<'_>) -> impl Future<Output = Result<Row, Error>> + Send;
    /// Fails if more than one row is returned.
    fn query_opt(
        &self,
        query: &str,
        parameters: Parameters<'_>,
    ) -> impl Future<Output = Result<Option<Row>, Error>> + Send;
    /// Returns the number of affected rows.
    fn execute(&self, query: &str, parameters: Parameters<'_>) -> impl Future<Output = Result<u64, Error>> + Send;
}

/// A wildcard for the columns of parameters, not of a table; without a join.
const ALL_OF_PARAMETERS: &str = "SELECT * FROM unnest(";

/// True when a query's columns stay the same while a newer release adds columns to its tables: a cached statement whose
/// columns changed is rejected, and both releases may serve at the same time.
fn has_fixed_columns(query: &str) -> bool {
    let selects_all = |part: &str| ["SELECT *", "RETURNING *", ".*"].iter().any(|wildcard| part.contains(wildcard));
    !query.split(ALL_OF_PARAMETERS).any(selects_all)
}

/// Empties the cache when it is full.
fn limit_cache(statements: &StatementCache) {
    if statements.size() >= MAX_STATEMENTS {
        statements.clear();
    }
}

macro_rules! with_cached_statements {
    (@ $client:ty: $($name:ident -> $output:ty),*) => {
        impl GenericClient for $client {
            $(async fn $name(&self, query: &str, parameters: Parameters<'_>) -> Result<$output, Error> {
                if !has_fixed_columns(query) {
                    return (**self).$name(query, parameters).await;
                }
                limit_cache(&self.statement_cache);
                (**self).$name(&self.prepare_cached(query).await?, parameters).await
            })*
        }
    };
    ($($client:ty),*) => {$(
        with_cached_statements!(@ $client: query -> Vec<Row>, query_one -> Row, query_opt -> Option<Row>, execute -> u64);
    )*};
}

with_cached_statements!(ClientWrapper, Transaction<'_>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_statements_with_fixed_columns_are_cached() {
        assert!(has_fixed_columns("SELECT id FROM dag"));
        assert!(has_fixed_columns("SELECT id FROM dag WHERE (dag_id, name) IN (SELECT * FROM unnest($1, $2))"));
        for query in ["SELECT * FROM dag", "DELETE FROM dag RETURNING *", "SELECT d.*, 1 FROM dag d"] {
            assert!(!has_fixed_columns(query), "{query}");
            assert!(!has_fixed_columns(&format!("{query} WHERE id IN (SELECT * FROM unnest($1))")), "{query}");
        }
    }
}
