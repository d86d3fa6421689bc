//! The datastore as an argument.

use crate::error::Error;
use leoflow_base::config::DatastoreSetting;

/// Parses a datastore given on the command line; `option` names the argument in errors.
pub fn parse(text: &str, option: &str) -> Result<DatastoreSetting, Error> {
    DatastoreSetting::parse(text).map_err(|allowed| Error::usage(format!("{option} is not {allowed}")))
}
