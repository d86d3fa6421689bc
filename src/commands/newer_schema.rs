//! Names the program that reads what this one refuses: a database or a backup of a newer schema.

use crate::error::Error;
use crate::home::Home;
use crate::upgrade::{stage, versions};

/// Puts a kept version that knows the schema before the other hints.
pub fn with_reader(home: &Home, mut error: Error) -> Error {
    let Some(schema) = error.newer_schema.take() else { return error };
    let reader = versions::list(home).into_iter().find(|kept| kept.schema_version >= Some(schema));
    if let Some(kept) = reader {
        let program = stage::program_of(home, &kept.version);
        error.hints.insert(0, format!("leoflow {}, kept here, reads it: {}", kept.version, program.display()));
    }
    error
}
