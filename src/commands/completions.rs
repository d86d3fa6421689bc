use crate::cli::args::{Cli, Completions};
use crate::cli::printer::Printer;
use crate::error::Error;
use clap::CommandFactory;

pub fn run(args: &Completions, printer: &Printer) -> Result<u8, Error> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "leoflow", &mut script);
    printer.raw(&String::from_utf8_lossy(&script));
    Ok(0)
}
