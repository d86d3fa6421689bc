//! `leoflow completions`: a script that calls this program at each Tab, so that it completes ids too.

use crate::cli::args::Completions;
use crate::cli::complete;
use crate::cli::printer::Printer;
use crate::error::Error;

pub fn run(args: &Completions, printer: &Printer) -> Result<u8, Error> {
    let script = complete::script(&args.shell.to_string())
        .map_err(|error| Error::failed(format!("no completions for {}: {error}", args.shell)))?;
    printer.raw(&String::from_utf8_lossy(&script));
    Ok(0)
}
