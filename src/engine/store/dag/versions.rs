//! DAG versions. A version is the definition of a DAG at one state of its file.

use crate::model::dag::Structure;
use crate::store::list::field::{filter, list_fields};
use crate::store::list::listing::{ListPage, Listing, Source};
use crate::store::rows::{FromRow, fetch_one, fetch_optional, from_row, get};
use crate::store::{Result, StoreError};
use jiff::Timestamp;
use leoflow_postgres::GenericClient;
use serde_json::{Map, Value};
use tokio_postgres::Row;
use tokio_postgres::types::Json;

from_row! {
    /// Identifies a DAG version, for lists.
    #[derive(Debug, Clone)]
    pub struct VersionName {
        pub dag_id: String,
        pub number: i32 = "version_number",
        pub created_at: Timestamp = "version_created_at",
    }
}

/// SQL columns of the version `v` of a [`VersionName`], besides `dag_id`.
pub(crate) const VERSION_NAME: &str = "v.version_number, v.created_at AS version_created_at";

impl VersionName {
    /// The version of a run or a task instance; `None` if the row has none.
    pub(crate) fn of_run(row: &Row) -> Result<Option<Self>> {
        get::<Option<i32>>(row, "version_number")?.map(|_| Self::from_row(row)).transpose()
    }
}

list_fields! {
    /// Fields of DAG versions, for lists.
    VersionField, key: [Id], filter: VersionFilter;
    Id = whole("v.id"),
    Number = whole("v.version_number"),
    BundleVersion = text("v.version_number::text"),
    CreatedAt = time("v.created_at"),
}

filter! {
    /// Filters of DAG versions.
    pub struct VersionFilter {
        dag_id: String = "v.dag_id = {}",
    }
}

/// A page of DAG versions.
pub async fn list(client: &impl GenericClient, listing: Listing<VersionField>) -> Result<ListPage<VersionName>> {
    let columns = format!("v.dag_id, {VERSION_NAME}");
    listing.fetch(client, &Source::new(&columns, "dag_version v")).await
}

/// Finds the version of a DAG with this number.
pub async fn named(client: &impl GenericClient, dag_id: &str, number: i32) -> Result<Option<VersionName>> {
    let query = format!("SELECT v.dag_id, {VERSION_NAME} FROM dag_version v WHERE dag_id = $1 AND version_number = $2");
    fetch_optional(client, &query, &[&dag_id, &number]).await
}

from_row! {
    /// The structure and sources of a version.
    pub struct Version {
        pub structure: Structure as Json,
        pub relative_fileloc: String,
        pub sources: Map<String, Value> as Json,
        /// Hash of the Python environment that its code runs with; `None` for the default interpreter.
        pub environment: Option<String>,
    }
}

pub async fn version(client: &impl GenericClient, id: i64) -> Result<Version> {
    let query = "SELECT structure, relative_fileloc, sources, environment FROM dag_version WHERE id = $1";
    let version = fetch_optional(client, query, &[&id]).await?;
    version.ok_or_else(|| StoreError::NotFound { what: "dag version", id: id.to_string() })
}

/// The structure of the version with this id.
pub(crate) async fn structure_by_id(client: &impl GenericClient, id: i64) -> Result<Structure> {
    fetch_one(client, "SELECT structure FROM dag_version WHERE id = $1", &[&id]).await
}

/// The structure as it is stored.
pub async fn structure_json(client: &impl GenericClient, dag_id: &str, number: i32) -> Result<Option<Value>> {
    let query = "SELECT structure FROM dag_version WHERE dag_id = $1 AND version_number = $2";
    fetch_optional(client, query, &[&dag_id, &number]).await
}

/// The structure of a DAG in the version with this number.
pub async fn structure(client: &impl GenericClient, dag_id: &str, number: i32) -> Result<Option<Structure>> {
    let query = "SELECT structure FROM dag_version WHERE dag_id = $1 AND version_number = $2";
    fetch_optional(client, query, &[&dag_id, &number]).await
}

impl FromRow for Structure {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(get::<Json<_>>(row, "structure")?.0)
    }
}
