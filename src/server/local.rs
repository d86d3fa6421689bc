//! What only this user's own commands may ask, over `run/api.sock`: whole lists with their secrets
//! in, and imports in one transaction.

use super::api_error::ApiError;
use super::state::AppState;
use super::variables::bad_body;
use crate::engine::connections::{self, Connection};
use crate::engine::store::{ALL, StoreError};
use crate::engine::variables::{self, Variable};
use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

type Shared = State<Arc<AppState>>;

/// What to do with an entry that exists: Airflow's `--action-on-existing-key`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnExisting {
    Overwrite,
    Skip,
    Fail,
}

#[derive(Deserialize)]
pub struct Import<T> {
    on_existing: OnExisting,
    entries: Vec<T>,
}

#[derive(Serialize)]
pub struct Imported {
    imported: usize,
    skipped: usize,
}

pub async fn export_variables(State(state): Shared) -> Result<Json<Vec<Variable>>, ApiError> {
    let client = state.database.get().await?;
    Ok(Json(variables::list(&**client, &state.cipher, &ALL).await?.0))
}

pub async fn export_connections(State(state): Shared) -> Result<Json<Vec<Connection>>, ApiError> {
    let client = state.database.get().await?;
    Ok(Json(connections::list(&**client, &state.cipher, &ALL).await?.0))
}

pub async fn import_variables(
    State(state): Shared,
    body: Result<Json<Import<Variable>>, JsonRejection>,
) -> Result<Json<Imported>, ApiError> {
    let Json(import) = body.map_err(bad_body)?;
    let mut client = state.database.get().await?;
    let transaction = client.transaction().await?;
    let mut counts = Imported { imported: 0, skipped: 0 };
    for entry in &import.entries {
        let written = match import.on_existing {
            OnExisting::Overwrite => variables::set(&*transaction, &state.cipher, entry).await,
            OnExisting::Skip | OnExisting::Fail => variables::create(&*transaction, &state.cipher, entry).await,
        };
        counts.count(written, import.on_existing)?;
    }
    transaction.commit().await?;
    Ok(Json(counts))
}

pub async fn import_connections(
    State(state): Shared,
    body: Result<Json<Import<Connection>>, JsonRejection>,
) -> Result<Json<Imported>, ApiError> {
    let Json(import) = body.map_err(bad_body)?;
    let mut client = state.database.get().await?;
    let transaction = client.transaction().await?;
    let mut counts = Imported { imported: 0, skipped: 0 };
    for entry in &import.entries {
        let written = match import.on_existing {
            OnExisting::Overwrite => connections::set(&*transaction, &state.cipher, entry).await,
            OnExisting::Skip | OnExisting::Fail => connections::create(&*transaction, &state.cipher, entry).await,
        };
        counts.count(written, import.on_existing)?;
    }
    transaction.commit().await?;
    Ok(Json(counts))
}

impl Imported {
    fn count(&mut self, written: Result<(), StoreError>, on_existing: OnExisting) -> Result<(), StoreError> {
        match written {
            Ok(()) => self.imported += 1,
            Err(StoreError::AlreadyExists { .. }) if on_existing == OnExisting::Skip => self.skipped += 1,
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
