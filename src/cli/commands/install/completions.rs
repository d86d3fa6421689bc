//! `leoflow completions`: a script that calls this program at each Tab, so that it completes ids too.

use crate::args::complete;
use crate::error::Error;
use crate::terminal::printer::Printer;
use clap::Args;
use clap_complete::Shell;

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  leoflow completions bash > ~/.local/share/bash-completion/completions/leoflow")]
pub struct Completions {
    /// The shell to complete for
    pub shell: Shell,
}

pub fn run(args: &Completions, printer: &Printer) -> Result<u8, Error> {
    let script = complete::script(&args.shell.to_string())
        .map_err(|error| Error::failed(format!("no completions for {}: {error}", args.shell)))?;
    printer.raw(&String::from_utf8_lossy(&script));
    Ok(0)
}
