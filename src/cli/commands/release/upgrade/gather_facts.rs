//! Opens the datastore and gathers the facts that an upgrade or rollback depends on. If Lite is stopped, its datastore
//! is started for this.

use crate::context::Context;
use crate::error::Error;
use crate::recovery::datastore::Datastore;
use leoflow_lifecycle::upgrade::facts::{self, FactSources};
use leoflow_lifecycle::upgrade::plan::{Instance, UpgradeFacts};

/// The facts, and the open datastore they were read from.
pub struct FactsAndDatastore {
    pub facts: UpgradeFacts,
    pub datastore: Datastore,
}

/// Opens the datastore and gathers the facts. Other commands see `command` while this one holds the home.
pub async fn gather(context: &Context<'_>, command: &str) -> Result<FactsAndDatastore, Error> {
    let home = &context.home;
    let datastore = Datastore::open(&context.recovery(), command).await?;
    let instance = match datastore.is_of_running_instance {
        true => facts::running_instance(home),
        false => Instance::Stopped,
    };
    let client = datastore.connect().await?;
    let config = context.config()?.map(|loaded| loaded.config);
    let sources =
        FactSources { home, config: config.as_ref(), own_version: context.version, instance, client: &client };
    let facts = facts::gather(sources).await?;
    Ok(FactsAndDatastore { facts, datastore })
}
