//! What an import does with entries that already exist.

use clap::ValueEnum;
use leoflow_engine::store;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnExisting {
    Overwrite,
    Fail,
    Skip,
}

impl OnExisting {
    pub(crate) fn for_store(self) -> store::OnExisting {
        match self {
            Self::Overwrite => store::OnExisting::Overwrite,
            Self::Fail => store::OnExisting::Fail,
            Self::Skip => store::OnExisting::Skip,
        }
    }
}
