//! `leoflow completions`: a script that calls this program at each Tab, so that it completes ids too.

use crate::args::Completions;
use crate::args::complete;
use crate::error::Error;
use crate::terminal::printer::Printer;

pub fn run(args: &Completions, printer: &Printer) -> Result<u8, Error> {
    let script = complete::script(&args.shell.to_string())
        .map_err(|error| Error::failed(format!("no completions for {}: {error}", args.shell)))?;
    printer.raw(&String::from_utf8_lossy(&script));
    Ok(0)
}
