//! Reads the rows of queries. [`from_row`] defines a struct whose fields are read from the columns of the same names.

use super::{Result, StoreError};
use crate::model::keys::{InstanceKey, Position, RunKey, TryKey};
use crate::model::state::{RunState, RunType, TaskState, TryState};
use leoflow_postgres::GenericClient;
use std::error::Error;
use tokio_postgres::Row;
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{FromSql, FromSqlOwned, IsNull, ToSql, Type};

type Parameters<'a> = &'a [&'a (dyn ToSql + Sync)];

/// A value that is read from a row: a struct by the names of the columns, a scalar or a tuple by their positions.
pub(crate) trait FromRow: Sized {
    fn from_row(row: &Row) -> Result<Self>;
}

/// Runs a query and reads all rows.
pub(crate) async fn fetch_all<T: FromRow>(
    client: &impl GenericClient,
    query: &str,
    parameters: Parameters<'_>,
) -> Result<Vec<T>> {
    client.query(query, parameters).await?.iter().map(T::from_row).collect()
}

/// Runs a query and reads its row; `None` if there is none. Fails if there are several.
pub(crate) async fn fetch_optional<T: FromRow>(
    client: &impl GenericClient,
    query: &str,
    parameters: Parameters<'_>,
) -> Result<Option<T>> {
    client.query_opt(query, parameters).await?.as_ref().map(T::from_row).transpose()
}

/// Runs a query and reads its only row.
pub(crate) async fn fetch_one<T: FromRow>(
    client: &impl GenericClient,
    query: &str,
    parameters: Parameters<'_>,
) -> Result<T> {
    T::from_row(&client.query_one(query, parameters).await?)
}

/// True if the query has a row.
pub(crate) async fn exists(client: &impl GenericClient, query: &str, parameters: Parameters<'_>) -> Result<bool> {
    Ok(client.query_opt(query, parameters).await?.is_some())
}

/// Runs a statement that may change any number of rows.
pub(crate) async fn execute(client: &impl GenericClient, statement: &str, parameters: Parameters<'_>) -> Result<()> {
    client.execute(statement, parameters).await?;
    Ok(())
}

/// A name, such as a state, that this version does not know, although the table's constraints should allow no such name.
#[derive(Debug, thiserror::Error)]
#[error("unknown name {0:?}")]
pub(crate) struct UnknownName(pub(crate) String);

/// Reads a column. A name from a fixed set that this version does not know is a `StoreError::UnknownValue`.
pub(crate) fn get<'a, T: FromSql<'a>>(row: &'a Row, column: &str) -> Result<T> {
    row.try_get(column).map_err(|error| unreadable(error, column))
}

/// Reads a column by its position.
fn get_at<'a, T: FromSql<'a>>(row: &'a Row, position: usize) -> Result<T> {
    row.try_get(position).map_err(|error| unreadable(error, row.columns()[position].name()))
}

fn unreadable(error: tokio_postgres::Error, column: &str) -> StoreError {
    let column = column.to_owned();
    match error.source().and_then(|source| source.downcast_ref()) {
        Some(UnknownName(value)) => StoreError::UnknownValue { column, value: value.clone() },
        None => StoreError::Unreadable { column, source: error },
    }
}

/// Reads enums of names from text columns.
macro_rules! read_by_name {
    ($($name:ty),+) => {$(
        impl tokio_postgres::types::FromSql<'_> for $name {
            fn from_sql(kind: &tokio_postgres::types::Type, raw: &[u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
                let name = <&str as tokio_postgres::types::FromSql>::from_sql(kind, raw)?;
                Self::parse(name).ok_or_else(|| $crate::store::rows::UnknownName(name.to_owned()).into())
            }

            fn accepts(kind: &tokio_postgres::types::Type) -> bool {
                <&str as tokio_postgres::types::FromSql>::accepts(kind)
            }
        }
    )+};
}

read_by_name!(RunState, RunType, TaskState, TryState);

impl FromSql<'_> for Position {
    fn from_sql(kind: &Type, raw: &[u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        i32::from_sql(kind, raw).map(Self::from_stored)
    }

    fn accepts(kind: &Type) -> bool {
        <i32 as FromSql>::accepts(kind)
    }
}

impl ToSql for Position {
    fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        self.stored().to_sql(kind, out)
    }

    fn accepts(kind: &Type) -> bool {
        <i32 as ToSql>::accepts(kind)
    }

    tokio_postgres::types::to_sql_checked!();
}

/// Reads single values from the first column.
macro_rules! single_value {
    ($($type:ty),+) => {$(
        impl FromRow for $type {
            fn from_row(row: &Row) -> Result<Self> {
                get_at(row, 0)
            }
        }
    )+};
}

single_value!(String, Option<String>, Option<TaskState>, bool, i32, i64, f64, serde_json::Value);

impl<A: FromSqlOwned, B: FromSqlOwned> FromRow for (A, B) {
    fn from_row(row: &Row) -> Result<Self> {
        Ok((get_at(row, 0)?, get_at(row, 1)?))
    }
}

impl<A: FromSqlOwned, B: FromSqlOwned, C: FromSqlOwned> FromRow for (A, B, C) {
    fn from_row(row: &Row) -> Result<Self> {
        Ok((get_at(row, 0)?, get_at(row, 1)?, get_at(row, 2)?))
    }
}

/// Defines a struct that is read from a row. A field has the column of its name, or the one after `=`. `as Json`
/// deserializes a column of JSON; the function after `=>` reads a field that is not a single column.
macro_rules! from_row {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident {
            $(
                $(#[$field_meta:meta])*
                $field_vis:vis $field:ident: $type:ty
                    $(= $column:literal)? $(as $json:ident $(= $json_column:literal)?)? $(=> $read:expr)?
            ),+ $(,)?
        }
    ) => {
        $(#[$meta])*
        $vis struct $name {
            $($(#[$field_meta])* $field_vis $field: $type,)+
        }

        impl $crate::store::rows::FromRow for $name {
            fn from_row(row: &tokio_postgres::Row) -> $crate::store::Result<Self> {
                Ok(Self {
                    $($field: $crate::store::rows::from_row!(
                        @field row $field $(= $column)? $(as $json $(= $json_column)?)? $(=> $read)?
                    ),)+
                })
            }
        }
    };
    (@field $row:ident $field:ident) => {
        $crate::store::rows::get($row, stringify!($field))?
    };
    (@field $row:ident $field:ident = $column:literal) => {
        $crate::store::rows::get($row, $column)?
    };
    (@field $row:ident $field:ident as Json) => {
        $crate::store::rows::get::<tokio_postgres::types::Json<_>>($row, stringify!($field))?.0
    };
    (@field $row:ident $field:ident as Json = $column:literal) => {
        $crate::store::rows::get::<tokio_postgres::types::Json<_>>($row, $column)?.0
    };
    (@field $row:ident $field:ident => $read:expr) => {
        $read($row)?
    };
}
pub(crate) use {from_row, read_by_name};

impl FromRow for RunKey {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self { dag_id: get(row, "dag_id")?, run_id: get(row, "run_id")? })
    }
}

impl FromRow for InstanceKey {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self { run: RunKey::from_row(row)?, task_id: get(row, "task_id")?, position: get(row, "map_index")? })
    }
}

impl FromRow for TryKey {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self { instance: InstanceKey::from_row(row)?, try_number: get(row, "try_number")? })
    }
}
