//! A backup file reader that reports its progress.

use leoflow_base::home::progress::{Progress, Reporter};
use std::fs::File;
use std::io::{self, Read};

/// Reports how much of the file has been read.
pub struct ProgressReader<'a> {
    file: File,
    done: u64,
    reported: u64,
    total: u64,
    reporter: &'a dyn Reporter,
}

impl<'a> ProgressReader<'a> {
    /// `total` is the size in bytes.
    pub fn new(file: File, total: u64, reporter: &'a dyn Reporter) -> Self {
        Self { file, done: 0, reported: 0, total, reporter }
    }
}

/// Bytes between two progress reports.
const STRIDE: u64 = 4 * 1024 * 1024;

impl Read for ProgressReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.done += count as u64;
        if self.done - self.reported >= STRIDE {
            self.reported = self.done;
            let what = "Checking the backup".to_owned();
            self.reporter.report(Progress::Bytes { what, done: self.done, total: self.total });
        }
        Ok(count)
    }
}
