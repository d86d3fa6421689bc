//! Undoes migrations with the SQL in the ledger.

use crate::upgrade::UpgradeError;
use leoflow_postgres::Access;
use leoflow_postgres::schema::{self, Extent, SchemaError};

/// True when every migration above `schema` can be undone. A rollback checks this before it stops anything.
pub(crate) async fn is_possible(access: &Access, schema: i64) -> bool {
    let check = async {
        let client = access.connect(&access.application()).await?;
        schema::to_undo(&client, Extent::DownTo(schema)).await
    };
    matches!(check.await, Ok(_) | Err(SchemaError::NothingToUndo))
}

/// Undoes every migration above `schema`, and returns their names.
pub(crate) async fn undo(access: &Access, schema: i64) -> Result<Vec<String>, UpgradeError> {
    let login = access.application();
    let (lock, mut client) = (access.connect(&login).await?, access.connect(&login).await?);
    match schema::rollback(&lock, &mut client, Extent::DownTo(schema), &mut |_| {}).await {
        Ok(undone) => Ok(undone.undone),
        Err(SchemaError::NothingToUndo) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}
