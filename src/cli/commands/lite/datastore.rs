//! Checks an external or Docker datastore before anything is changed.

use crate::error::Error;
use leoflow_base::config::DatastoreSetting;
use leoflow_base::home::Home;
use leoflow_base::home::progress::{Progress, Reporter};
use leoflow_lifecycle::setup::Plan;
use leoflow_postgres::external::database_check;
use leoflow_postgres::location::{self, Container, LocationError};

/// Parses a datastore given on the command line; `option` names the argument in errors.
pub fn parse(text: &str, option: &str) -> Result<DatastoreSetting, Error> {
    DatastoreSetting::parse(text).map_err(|allowed| Error::usage(format!("{option} is not {allowed}")))
}

/// Checks the datastore that the plan starts to use.
pub async fn check_planned(home: &Home, plan: &Plan, reporter: &dyn Reporter) -> Result<(), Error> {
    match plan.other_datastore() {
        Some(setting) => require(home, setting, reporter).await,
        None => Ok(()),
    }
}

/// Checks that this home can use the datastore.
pub async fn require(home: &Home, setting: &DatastoreSetting, reporter: &dyn Reporter) -> Result<(), Error> {
    let home_id = location::recorded_home_id(home);
    let Some(url) = setting.external().map_err(LocationError::Url)? else {
        if *setting == DatastoreSetting::Docker {
            // Checks only that the container can be created; the setup or move plans it again.
            Container::plan(home, &home_id)?;
        }
        return Ok(());
    };
    let database = database_check::require(&url, Some(&home_id)).await?;
    reporter.report(Progress::Finished(format!("PostgreSQL {} at {}", database.version, url.address)));
    if url.is_open_to_others() {
        let text = format!("the connection to {} is not encrypted: its URL has sslmode=disable", url.address);
        reporter.report(Progress::Warning(text));
    }
    if !database.may_create_databases {
        reporter.report(Progress::Note(format!(
            "the role {} may not create databases: upgrades are not rehearsed, and copy the data to this machine while they run",
            url.role
        )));
    }
    Ok(())
}
