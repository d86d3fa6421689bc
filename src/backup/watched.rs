//! A backup that is read from its beginning to its end, with a word on how far.

use crate::home::progress::{Progress, Reporter};
use std::fs::File;
use std::io::{self, Read};

/// Tells how much of the file has been read.
pub struct Watched<'a> {
    file: File,
    done: u64,
    said: u64,
    total: u64,
    reporter: &'a dyn Reporter,
}

impl<'a> Watched<'a> {
    /// `total` is its size in bytes.
    pub fn new(file: File, total: u64, reporter: &'a dyn Reporter) -> Self {
        Self { file, done: 0, said: 0, total, reporter }
    }
}

/// Bytes between two words on the progress.
const STRIDE: u64 = 4 * 1024 * 1024;

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.done += count as u64;
        if self.done - self.said >= STRIDE {
            self.said = self.done;
            let what = "Checking the backup".to_owned();
            self.reporter.report(Progress::Bytes { what, done: self.done, total: self.total });
        }
        Ok(count)
    }
}
