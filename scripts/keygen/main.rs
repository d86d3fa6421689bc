//! `keygen KEY`: makes the key files KEY and KEY.pub.

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(path) = std::env::args_os().nth(1) else {
        eprintln!("usage: keygen KEY");
        return ExitCode::from(2);
    };
    match leoflow_keygen::generate(&PathBuf::from(path)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
