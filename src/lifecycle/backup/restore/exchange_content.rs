//! The database part of an exchange on an external server, where Leoflow may not rename databases: replaces the content
//! of the database with an exported one.

use super::exchange_error::{ExchangeError, io_error};
use super::restore_dir::{RestoreDir, When};
use crate::backup::content::{Content, ExpectedOwner};
use leoflow_base::home::Home;
use leoflow_postgres::external::claim::Claim;
use leoflow_postgres::{Access, PgError, instance_fact, location};
use std::io;

pub struct ContentExchange<'a> {
    pub home: &'a Home,
    pub access: &'a Access,
    pub restore_dir: &'a RestoreDir,
}

impl ContentExchange<'_> {
    /// Makes the content of this state current in one transaction, which also records `mark`, the identifier of this
    /// exchange. Does nothing if the recorded mark shows that the state is already current.
    pub async fn exchange(&self, mark: &str, state: When) -> Result<(), ExchangeError> {
        let login = self.access.application();
        let client = self.access.connect(&login).await?;
        let is_exchanged = instance_fact::read(&client, MARK).await?.as_deref() == Some(mark.as_bytes());
        drop(client);
        if is_exchanged == (state == When::After) {
            return Ok(());
        }
        let path = self.restore_dir.content(state);
        let content = Content::at(&path).map_err(|source| io_error("read", &path, source))?;
        let content = content.ok_or_else(|| io_error("read", &path, io::ErrorKind::NotFound.into()))?;
        let mark = if state == When::After { mark } else { "" };
        let location = location::recorded(self.home)?.ok_or(PgError::NotManaged)?;
        let final_statements = [instance_fact::statement(MARK, mark), Claim::of(self.home, &location).statement()];
        Ok(content
            .import_into(self.access, &login, ExpectedOwner::Home(&location.home_id), &final_statements)
            .await
            .map_err(Box::new)?)
    }
}

/// Name of the row in `instance_fact` that records the mark of the last exchange.
const MARK: &str = "exchange";
