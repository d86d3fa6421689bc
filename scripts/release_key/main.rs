//! `release-key KEY`: makes the key files KEY and KEY.pub.

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(path) = std::env::args_os().nth(1) else {
        eprintln!("usage: release-key KEY");
        return ExitCode::from(2);
    };
    match leoflow_release_key::generate(&PathBuf::from(path)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
