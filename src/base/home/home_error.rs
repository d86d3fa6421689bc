//! Errors about a folder that cannot be a home or a workspace.

use crate::sys::env_vars::NoCurrentFolder;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    #[error("there is no home directory: HOME is not set and user {0} has no passwd entry")]
    NoUserHome(u32),
    #[error("the path {0:?} contains a line break or another control character")]
    ControlCharacter(PathBuf),
    #[error("the path {0} contains a double quote, which PostgreSQL's initdb does not support")]
    DoubleQuote(PathBuf),
    #[error("the path {0} is not valid UTF-8")]
    NotUtf8(PathBuf),
    #[error("{0} is a file, not a folder")]
    NotAFolder(PathBuf),
    #[error(transparent)]
    NoCurrentFolder(#[from] NoCurrentFolder),
    #[error("the home {home} belongs to {owner}, who could not change files that this command creates there")]
    OfAnotherUser { home: PathBuf, owner: String, uid: u32 },
    #[error("{home} is in use for something else ({example}), so it cannot be Leoflow's home")]
    InUse { home: PathBuf, example: PathBuf },
    #[error("the workspace cannot be {path}: that is {why}")]
    NoWorkspace { path: PathBuf, why: &'static str },
    #[error(
        "{0:?} is not a valid instance name: use up to 40 lower-case letters, digits, - and _, and begin \
         with a letter or digit"
    )]
    InstanceName(String),
    #[error("there is no instance {0:?}")]
    NoInstance(String),
    #[error("the home cannot be / or your own home directory ({0})")]
    TooWide(PathBuf),
}
