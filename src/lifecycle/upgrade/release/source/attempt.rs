//! One attempt to complete a partial file: a copy from a folder, or a download that resumes at the end of the file.

use super::partial_file::PartialFile;
use super::{FetchError, ReleaseFile, Source, client, open_error, with_timeout};
use crate::upgrade::release::address::is_address;
use crate::upgrade::release::range::{RangeAnswer, answer_to_range};
use leoflow_base::home::progress::{Progress, Reporter};
use reqwest::Response;
use reqwest::header::{CONTENT_RANGE, RANGE};
use std::fs::File;
use std::io::Read;
use std::path::Path;

impl Source {
    /// Makes one attempt to complete the partial file `part`.
    pub(super) async fn fetch_into(
        &self,
        release_file: &ReleaseFile,
        part: &Path,
        reporter: &dyn Reporter,
    ) -> Result<(), FetchError> {
        let location = self.location(&release_file.url);
        let title = format!("Fetching {}", release_file.name());
        let mut target = PartialFile::open(part, release_file, &location)?;
        let report =
            |done: u64| reporter.report(Progress::Bytes { what: title.clone(), done, total: release_file.size });
        match self {
            Self::Folder(folder) if !is_address(&release_file.url) => {
                copy(&folder.join(&release_file.url), &mut target, &location, report)
            }
            _ if target.length == release_file.size => Ok(()),
            _ => self.download(release_file, &mut target, &location, report).await,
        }
    }

    async fn download(
        &self,
        release_file: &ReleaseFile,
        target: &mut PartialFile<'_>,
        location: &str,
        report: impl Fn(u64),
    ) -> Result<(), FetchError> {
        let mut write_failure = None;
        let read = async {
            let mut response = match self.request_rest(release_file, target).await? {
                Ok(response) => response.error_for_status()?,
                Err(error) => {
                    write_failure = Some(error);
                    return Ok(());
                }
            };
            while let Some(chunk) = response.chunk().await? {
                if let Err(error) = target.write(&chunk) {
                    write_failure = Some(error);
                    return Ok(());
                }
                report(target.length);
            }
            Ok(())
        };
        with_timeout(location, read).await?;
        write_failure.map_or(Ok(()), Err)
    }

    /// Requests the rest of the file. Empties the partial file if the host sends the whole file instead. The inner
    /// error is about writing the partial file.
    async fn request_rest(
        &self,
        release_file: &ReleaseFile,
        target: &mut PartialFile<'_>,
    ) -> reqwest::Result<Result<Response, FetchError>> {
        let client = client()?;
        let url = self.request(&release_file.url);
        if target.length == 0 {
            return client.get(&url).send().await.map(Ok);
        }
        let from = target.length;
        let response = client.get(&url).header(RANGE, format!("bytes={from}-")).send().await?;
        let range = response.headers().get(CONTENT_RANGE);
        match answer_to_range(response.status(), range, from, release_file.size) {
            RangeAnswer::Rest | RangeAnswer::Failed => Ok(Ok(response)),
            RangeAnswer::Whole => Ok(target.restart().map(|()| response)),
            // The host does not support ranges correctly.
            RangeAnswer::Useless => match target.restart() {
                Ok(()) => client.get(&url).send().await.map(Ok),
                Err(error) => Ok(Err(error)),
            },
        }
    }
}

/// Copies the whole file.
fn copy(path: &Path, target: &mut PartialFile<'_>, location: &str, report: impl Fn(u64)) -> Result<(), FetchError> {
    let mut file = File::open(path).map_err(|error| open_error(location, &error))?;
    target.restart()?;
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let length = file
            .read(&mut buffer)
            .map_err(|error| FetchError::Unreachable { location: location.to_owned(), reason: error.to_string() })?;
        if length == 0 {
            return Ok(());
        }
        target.write(&buffer[..length])?;
        report(target.length);
    }
}
