//! Why a backup was not copied to a place, or not fetched from it. The texts are also those of scheduled copies, so they
//! say what to do.

use leoflow_base::config::SecretError;
use std::io;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    #[error("the folder does not exist: connect the disk, or create the folder")]
    NoFolder,
    #[error("the folder is in the home or the workspace, which a backup is to replace: choose another place")]
    InsideHome,
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("{0} is there already, with other content: give each instance a place of its own")]
    NameTaken(String),
    #[error("the copy {0} was changed there: if it is damaged, remove it there, and it is copied again")]
    Changed(String),
    #[error("{0} has other bytes there than were sent, and was removed: check the disk or the server")]
    Different(String),
    /// The number of backups that were copied there.
    #[error(
        "none of the {0} backups that were copied there is there now: connect the disk that has them, or copy the \
         backups again with leoflow lite backups copy"
    )]
    Vanished(usize),
    #[error("there is no backup")]
    Empty,
    #[error("there is no backup {0}")]
    NoBackup(String),
    #[error(
        "there is no access key for S3: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or access_key and secret_key of \
         the place in config.yaml"
    )]
    NoKeys,
    #[error("the {name} cannot be read: {source}")]
    Secret { name: &'static str, source: SecretError },
    #[error("S3: {}", short(.0))]
    S3(object_store::Error),
    #[error("OpenSSH's program `sftp` is not installed: install its client (Debian: openssh-client)")]
    NoSftp,
    /// The messages of `sftp`.
    #[error("sftp: {0}")]
    Sftp(String),
    #[error("{free} bytes are free in {path}, which is not enough to read the copy of {size} bytes")]
    NoSpace { path: PathBuf, free: u64, size: u64 },
}

/// Maximum length of a reason in characters: a server may answer with a page.
const REASON_LIMIT: usize = 300;

/// The code and message in the answer of an S3 server, or the end of the error's text, which has the cause. The crate
/// keeps the answer in that text only.
fn short(error: &object_store::Error) -> String {
    let text = error.to_string();
    let element = |name: &str| {
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        Some(rest.split_once("</")?.0)
    };
    let reason = match (element("Code"), element("Message")) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code.to_owned(),
        _ => text.rsplit(" - ").next().and_then(|end| end.lines().next()).unwrap_or(&text).to_owned(),
    };
    reason.chars().filter(|c| !c.is_control()).take(REASON_LIMIT).collect()
}

impl From<object_store::Error> for CopyError {
    fn from(error: object_store::Error) -> Self {
        Self::S3(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_s3_is_shortened_to_its_reason() {
        let generic = |text: &str| object_store::Error::Generic { store: "S3", source: text.into() };
        let answer = "Error performing GET http://h/b in 1ms - Server returned non-2xx status code: 404 Not Found: <?xml version=\"1.0\"?>\n\
                      <Error><Code>NoSuchBucket</Code><Message>The bucket does not exist</Message></Error>";
        assert_eq!(short(&generic(answer)), "NoSuchBucket: The bucket does not exist");
        let refused = "Error performing GET http://h/b in 1s, after 3 retries - HTTP error: connection refused";
        assert_eq!(short(&generic(refused)), "HTTP error: connection refused");
        assert_eq!(short(&generic(&"<html>".repeat(100_000))).len(), REASON_LIMIT);
    }
}
