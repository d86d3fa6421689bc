//! A datastore that is not under the home, looked at before anything is changed for it.

use crate::config::DatastoreSetting;
use crate::error::Error;
use crate::home::Home;
use crate::home::progress::{Progress, Reporter};
use crate::postgres::container::Container;
use crate::postgres::place::{self, PlaceError};
use crate::postgres::rights;
use crate::setup::Plan;

/// What was given on the command line by `option`.
pub fn parse(text: &str, option: &str) -> Result<DatastoreSetting, Error> {
    DatastoreSetting::parse(text).map_err(|allowed| Error::usage(format!("{option} is not {allowed}")))
}

/// Whether the one that the plan begins to use will do.
pub async fn look(home: &Home, plan: &Plan, reporter: &dyn Reporter) -> Result<(), Error> {
    match plan.other_datastore() {
        Some(setting) => require(home, setting, reporter).await,
        None => Ok(()),
    }
}

/// Whether it will do for this home.
pub async fn require(home: &Home, setting: &DatastoreSetting, reporter: &dyn Reporter) -> Result<(), Error> {
    let home_id = place::recorded_home_id(home);
    let Some(url) = setting.external().map_err(PlaceError::Url)? else {
        if *setting == DatastoreSetting::Docker {
            // Whether it could be made; it is planned anew when it is.
            Container::plan(home, &home_id)?;
        }
        return Ok(());
    };
    let found = rights::require(&url, Some(&home_id)).await?;
    reporter.report(Progress::Finished(format!("PostgreSQL {} at {}", found.version, url.address)));
    if url.is_open_to_others() {
        let text = format!("nothing is encrypted on the way to {}: sslmode=disable in its URL", url.address);
        reporter.report(Progress::Warning(text));
    }
    if !found.may_create_databases {
        reporter.report(Progress::Note(format!(
            "the role {} may not make databases: an upgrade copies its data here meanwhile, and is not rehearsed",
            url.role
        )));
    }
    Ok(())
}
