//! Arguments shared by the commands that can act on every instance.

use clap::Args;

#[derive(Args, Debug, Clone, Default)]
pub struct All {
    /// Act on every instance of this user, one after another; stops at the first failure
    #[arg(long)]
    pub all: bool,
    /// With --all: only these instances, comma-separated [default: all]
    #[arg(long, requires = "all", value_name = "NAMES", value_delimiter = ',')]
    pub only: Vec<String>,
    /// With --all: continue with the other instances when one fails
    #[arg(long, requires = "all")]
    pub keep_going: bool,
}
