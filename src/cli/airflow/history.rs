//! Exports finished runs and task instances as SQL for a database created by `airflow db migrate`.

use super::secrets::PrivateFile;
use crate::error::Error;
use leoflow_base::config::Recipient;
use leoflow_engine::store::airflow_history::{self, Counts, ExportError};
use std::path::Path;
use tokio_postgres::Client;

/// Writes the file, encrypted to the recipients if there are any.
pub async fn write(client: &mut Client, path: &Path, recipients: &[Recipient]) -> Result<Counts, Error> {
    let io = Error::cannot("write", path);
    let mut output = PrivateFile::create(path, recipients).map_err(io)?;
    let counts = airflow_history::write(client, output.writer()).await.map_err(|error| match error {
        ExportError::Postgres(error) => error.into(),
        ExportError::Write(error) => io(error),
    })?;
    output.finish().map_err(io)?;
    Ok(counts)
}
