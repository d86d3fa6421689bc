//! `--run-on-latest-version` and `--no-run-on-latest-version`, as in Airflow's CLI.

use clap::Args;

/// The version of its DAG that a rerun of a run uses.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct RerunVersion {
    /// Rerun with the DAG's newest version [default: the DAG's or the instance's rerun_with_latest_version]
    #[arg(long, conflicts_with = "no_run_on_latest_version")]
    run_on_latest_version: bool,
    /// Rerun with the version that the run has
    #[arg(long)]
    no_run_on_latest_version: bool,
}

impl RerunVersion {
    /// The value of `run_on_latest_version` in the API's requests; `None` leaves it to the DAG and the instance.
    pub fn requested(self) -> Option<bool> {
        (self.run_on_latest_version || self.no_run_on_latest_version).then_some(self.run_on_latest_version)
    }
}
