//! Sets up what a home lacks.

use super::OperationError;
use crate::setup::{self, InstalledBinary, Plan, Request};
use leoflow_base::config::{self, DatastoreSetting};
use leoflow_base::home::progress::{Progress, Reporter};
use leoflow_base::home::{Home, check_workspace, instances};
use leoflow_postgres::acquire::Sources;
use leoflow_postgres::external::database_check;
use leoflow_postgres::location::{self, Container, LocationError};

/// Plans what setup has to do. `version` is that of this program.
pub fn plan(home: &Home, version: &str, request: &Request) -> Result<Plan, OperationError> {
    let configured = config::load(&home.config())?.and_then(|loaded| loaded.config.workspace);
    // Needed only here, because without a home directory there is no default workspace.
    let workspace = match request.workspace.clone().or(configured) {
        Some(path) => path,
        None => instances::default_workspace(home)?,
    };
    check_workspace(home, &workspace)?;
    let binary = if request.install_always { InstalledBinary::Compare } else { InstalledBinary::Ignore };
    let facts = setup::gather(home, version, &workspace, binary)?;
    Ok(setup::plan(&facts, request)?)
}

/// Sets up what is missing. Returns the admin password if it was not shown yet.
pub async fn apply(
    home: &Home,
    version: &str,
    request: &Request,
    reporter: &dyn Reporter,
) -> Result<Option<String>, OperationError> {
    let plan = plan(home, version, request)?;
    if plan.resumes {
        reporter.note("Finishing an interrupted setup".to_owned());
    }
    check_planned_datastore(home, &plan, reporter).await?;
    let applied = setup::apply(home, &plan, request, version, &Sources::for_home(home), reporter).await?;
    match applied.password {
        Some(password) => Ok(Some(password)),
        None => Ok(setup::renew_unseen_password(home)?),
    }
}

/// Checks the datastore that the plan starts to use.
pub async fn check_planned_datastore(home: &Home, plan: &Plan, reporter: &dyn Reporter) -> Result<(), OperationError> {
    match plan.other_datastore() {
        Some(setting) => check_datastore(home, setting, reporter).await,
        None => Ok(()),
    }
}

/// Checks that this home can use an external or Docker datastore.
pub(crate) async fn check_datastore(
    home: &Home,
    setting: &DatastoreSetting,
    reporter: &dyn Reporter,
) -> Result<(), OperationError> {
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
        reporter.warn(format!("the connection to {} is not encrypted: its URL has sslmode=disable", url.address));
    }
    if !database.may_create_databases {
        reporter.note(format!(
            "the role {} may not create databases: upgrades are not rehearsed, and copy the data to this machine while they run",
            url.role
        ));
    }
    Ok(())
}
