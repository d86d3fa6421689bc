//! Pools: the file format of Airflow's CLI, and the requests that store them.

use crate::api_client::{Api, encode};
use crate::error::Error;
use serde_json::{Map, Value, json};

pub const POOLS: &str = "/api/v2/pools";

/// A pool to create or change.
#[derive(Clone)]
pub struct Entry {
    pub name: String,
    pub slots: i32,
    pub description: Option<String>,
    pub include_deferred: bool,
}

/// Reads `{"name": {"slots": …, "description": …}}`.
pub fn from_airflow(file: Value) -> Result<Vec<Entry>, Error> {
    let Value::Object(entries) = file else {
        return Err(Error::failed("the file is not a JSON object of pools").hint("nothing was imported"));
    };
    let pool = |(name, entry): (String, Value)| {
        let slots = entry["slots"].as_i64().and_then(|slots| i32::try_from(slots).ok());
        let slots = slots.ok_or_else(|| {
            Error::failed(format!("pool {name:?} has no valid number of slots")).hint("nothing was imported")
        })?;
        let description = entry["description"].as_str().map(str::to_owned);
        let include_deferred = entry["include_deferred"].as_bool().unwrap_or(false);
        Ok(Entry { name, slots, description, include_deferred })
    };
    entries.into_iter().map(pool).collect()
}

/// Converts pools of the API to the format of Airflow's export.
pub fn to_airflow(pools: &[Value]) -> Value {
    let entry = |pool: &Value| {
        let fields = json!({
            "slots": pool["slots"], "description": pool["description"].as_str().unwrap_or_default(),
            "include_deferred": pool["include_deferred"],
        });
        (pool["name"].as_str().unwrap_or_default().to_owned(), fields)
    };
    pools.iter().map(entry).collect::<Map<_, _>>().into()
}

/// Creates a pool, or changes the existing one.
pub async fn set(api: &Api<'_>, pool: &Entry) -> Result<(), Error> {
    let Entry { name, slots, description, include_deferred } = pool;
    let body = json!({"slots": slots, "description": description, "include_deferred": include_deferred});
    let exists = api.all(POOLS, "", "pools").await?.iter().any(|pool| pool["name"] == *name);
    if exists {
        let _: Value = api.patch(&pool_path(name), &body).await?;
        return Ok(());
    }
    let mut body = body;
    body["name"] = name.as_str().into();
    let _: Value = api.post("/api/v2/pools", &body).await?;
    Ok(())
}

/// The path of one pool in the API.
pub fn pool_path(name: &str) -> String {
    format!("/api/v2/pools/{}", encode(name))
}
