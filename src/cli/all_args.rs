//! What commands take that can be for every instance.

use clap::Args;

#[derive(Args, Debug, Clone, Default)]
pub struct All {
    /// Every instance of yours, one after another; the first that fails ends it
    #[arg(long)]
    pub all: bool,
    /// With --all: only these, with commas between them
    #[arg(long, requires = "all", value_name = "NAMES", value_delimiter = ',')]
    pub only: Vec<String>,
    /// With --all: go on with the others when one fails
    #[arg(long, requires = "all")]
    pub keep_going: bool,
}
