//! Maps the errors of homes and workspaces to messages with hints.

use super::Error;
use leoflow_base::home::HomeError;
use leoflow_base::sys::env_vars::NoCurrentFolder;

impl From<NoCurrentFolder> for Error {
    fn from(error: NoCurrentFolder) -> Self {
        Self::failed(error).hint("change to another folder, or use absolute paths")
    }
}

impl From<HomeError> for Error {
    fn from(error: HomeError) -> Self {
        let base = match &error {
            HomeError::OfAnotherUser { .. } | HomeError::InUse { .. } | HomeError::NoWorkspace { .. } => {
                Self::refused(&error)
            }
            _ => Self::failed(&error),
        };
        match error {
            HomeError::OfAnotherUser { owner, uid, .. } => base
                .hint(format!("run it as {owner}: sudo -u '#{uid}' -H leoflow …"))
                .hint("or choose a home of your own: --home DIR; nothing was written"),
            HomeError::InUse { .. } => {
                base.hint("choose a folder that is absent or empty: --home DIR, or LEOFLOW_HOME; nothing was written")
            }
            HomeError::NoWorkspace { .. } => base.hint(
                "choose a folder for your DAGs: --workspace DIR, or `workspace` in config.yaml; nothing was written",
            ),
            HomeError::InstanceName(_) => base.hint("leoflow instances list"),
            HomeError::NoInstance(name) => {
                base.hint("leoflow instances list").hint(format!("leoflow instances create {name}"))
            }
            HomeError::NoUserHome(_) => {
                base.hint("name one with --home DIR, or set LEOFLOW_HOME (and give --workspace DIR)")
            }
            HomeError::NoCurrentFolder(error) => error.into(),
            _ => base.hint("choose another folder with --home DIR or LEOFLOW_HOME; nothing was written"),
        }
    }
}
