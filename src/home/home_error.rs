//! Why a folder is no home, or no workspace.

use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    #[error("there is no home directory: HOME is not set and user {0} has no passwd entry")]
    NoUserHome(u32),
    #[error("the path {0:?} holds a line break or another control character")]
    ControlCharacter(PathBuf),
    #[error("the path {0} holds a double quote, which PostgreSQL's initdb cannot handle")]
    DoubleQuote(PathBuf),
    #[error("the path {0} is not UTF-8 text")]
    NotUtf8(PathBuf),
    #[error("{0} is a file, not a folder")]
    NotAFolder(PathBuf),
    #[error("the current folder is gone: {0}")]
    NoCurrentFolder(std::io::Error),
    #[error("the home {home} belongs to {owner}, and this would leave files there that {owner} cannot change")]
    OfAnotherUser { home: PathBuf, owner: String, uid: u32 },
    #[error("{home} is in use for something else ({example}), so it cannot be Leoflow's home")]
    InUse { home: PathBuf, example: PathBuf },
    #[error("the workspace cannot be {path}: that is {why}")]
    NoWorkspace { path: PathBuf, why: &'static str },
    #[error("{0:?} is no name of an instance: that is up to 40 lower-case letters, digits, - and _")]
    InstanceName(String),
    #[error("the home cannot be / or your own home directory ({0})")]
    TooWide(PathBuf),
}
