//! DAG versions. A version is the definition of a DAG at one state of its file.

use crate::model::dag::Structure;
use crate::store::StoreError;
use crate::store::list::conditions::Conditions;
use crate::store::list::field::{Filter, list_fields};
use crate::store::list::listing::{ListPage, Listing};
use crate::store::list::page_query::Source;
use jiff::Timestamp;
use leoflow_postgres::GenericClient;
use serde_json::{Map, Value};
use tokio_postgres::Row;
use tokio_postgres::types::Json;

/// Identifies a DAG version, for lists.
#[derive(Debug, Clone)]
pub struct VersionName {
    pub dag_id: String,
    pub number: i32,
    pub created_at: Timestamp,
}

/// SQL columns of the version `v` that [`VersionName::read`] reads, besides `dag_id`.
pub(crate) const VERSION_NAME: &str = "v.version_number, v.created_at AS version_created_at";

impl VersionName {
    /// Returns `None` if the row has no version.
    pub fn read(row: &Row) -> Option<Self> {
        let number = row.get::<_, Option<i32>>("version_number")?;
        Some(Self { dag_id: row.get("dag_id"), number, created_at: row.get("version_created_at") })
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

/// Filters of DAG versions.
#[derive(Debug, Default)]
pub struct VersionFilter {
    pub dag_id: Option<String>,
}

impl Filter for VersionFilter {
    fn add_to(self, conditions: &mut Conditions) {
        conditions.maybe("v.dag_id = {}", self.dag_id);
    }
}

/// A page of DAG versions.
pub async fn list(
    client: &impl GenericClient,
    listing: Listing<VersionField>,
) -> Result<ListPage<VersionName>, StoreError> {
    let columns = format!("v.dag_id, {VERSION_NAME}");
    let page = listing.fetch(client, &Source::new(&columns, "dag_version v"), VersionName::read).await?;
    let missing = || StoreError::Invalid("a DAG version has no number".to_owned());
    page.map(|version| version.ok_or_else(missing)).transpose()
}

/// Finds the version of a DAG with this number.
pub async fn named(client: &impl GenericClient, dag_id: &str, number: i32) -> Result<Option<VersionName>, StoreError> {
    let query = format!("SELECT v.dag_id, {VERSION_NAME} FROM dag_version v WHERE dag_id = $1 AND version_number = $2");
    Ok(client.query_opt(&query, &[&dag_id, &number]).await?.as_ref().and_then(VersionName::read))
}

/// The structure and sources of a version.
pub struct Version {
    pub structure: crate::model::dag::Structure,
    pub relative_fileloc: String,
    pub sources: Map<String, Value>,
    /// Hash of the Python environment that its code runs with; `None` for the default interpreter.
    pub environment: Option<String>,
}

pub async fn version(client: &impl GenericClient, id: i64) -> Result<Version, StoreError> {
    let query = "SELECT structure, relative_fileloc, sources, environment FROM dag_version WHERE id = $1";
    let row = client
        .query_opt(query, &[&id])
        .await?
        .ok_or_else(|| StoreError::NotFound { what: "dag version", id: id.to_string() })?;
    let Json(structure) = row.get("structure");
    let Json(sources) = row.get("sources");
    Ok(Version {
        structure,
        relative_fileloc: row.get("relative_fileloc"),
        sources,
        environment: row.get("environment"),
    })
}

/// The structure of the version with this id.
pub(crate) async fn structure_by_id(client: &impl GenericClient, id: i64) -> Result<Structure, StoreError> {
    let row = client.query_one("SELECT structure FROM dag_version WHERE id = $1", &[&id]).await?;
    Ok(row.get::<_, Json<Structure>>("structure").0)
}

/// The structure of a DAG in the version with this number.
pub async fn structure(
    client: &impl GenericClient,
    dag_id: &str,
    number: i32,
) -> Result<Option<Structure>, StoreError> {
    let query = "SELECT structure FROM dag_version WHERE dag_id = $1 AND version_number = $2";
    let row = client.query_opt(query, &[&dag_id, &number]).await?;
    Ok(row.map(|row| row.get::<_, Json<Structure>>(0).0))
}
