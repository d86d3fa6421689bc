//! Adds a hint to the refusal of a newer schema: the kept release that can read the database or backup.

use crate::error::Error;
use leoflow_base::home::Home;
use leoflow_lifecycle::upgrade::release::{stage, versions};

/// Adds, before the other hints, the kept release that knows the schema.
pub fn with_hint_to_newer_release(home: &Home, mut error: Error) -> Error {
    let Some(schema) = error.newer_schema.take() else { return error };
    let reader = versions::list(home).into_iter().flatten().find(|release| release.schema_version >= Some(schema));
    if let Some(release) = reader {
        let program = stage::program_of(home, &release.version);
        error.hints.insert(
            0,
            format!("leoflow {}, kept on this machine, can read it: {}", release.version, program.display()),
        );
    }
    error
}
