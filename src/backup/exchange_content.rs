//! The database's part of an exchange on a server that is somebody else's: what is in it goes, and what was written down
//! comes in its place.

use super::content::{Content, Whose};
use super::exchange_error::{ExchangeError, io_error};
use super::side::{Side, When};
use crate::home::Home;
use crate::postgres::claim::Claim;
use crate::postgres::{Access, PgError, instance_fact, place};
use std::io;

pub struct SideContent<'a> {
    pub home: &'a Home,
    pub access: &'a Access,
    pub side: &'a Side,
}

impl SideContent<'_> {
    /// In one transaction, which also says whether it was made.
    pub async fn exchange(&self, mark: &str, forward: bool) -> Result<(), ExchangeError> {
        let login = self.access.application();
        let client = self.access.connect(&login).await?;
        let is_made = instance_fact::read(&client, MARK).await?.as_deref() == Some(mark.as_bytes());
        drop(client);
        if is_made == forward {
            return Ok(());
        }
        let path = self.side.content(if forward { When::After } else { When::Before });
        let content = Content::at(&path).map_err(|source| io_error("read", &path, source))?;
        let content = content.ok_or_else(|| io_error("read", &path, io::ErrorKind::NotFound.into()))?;
        let mark = if forward { mark } else { "" };
        let place = place::recorded(self.home)?.ok_or(PgError::NotOurs)?;
        let last = [instance_fact::statement(MARK, mark), Claim::of(self.home, &place).statement()];
        Ok(content.bring_into(self.access, &login, Whose::Homes(&place.home_id), &last).await.map_err(Box::new)?)
    }
}

/// Says which exchange of content was the last to be made.
const MARK: &str = "exchange";
