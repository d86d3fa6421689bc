//! The pipe through which a task tells its keeper which values are secret, one JSON text a line, before it
//! uses them. So they are hidden in all that it prints, and in what its children print.

use super::log::TaskLog;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};

/// More than any credential has; a line that is longer is nobody's secret.
const LONGEST: usize = 4 * 1024 * 1024;

pub struct SecretsPipe {
    pipe: Option<File>,
    /// The beginning of a line that has no end yet.
    open: Vec<u8>,
}

impl SecretsPipe {
    pub fn new(pipe: File) -> Self {
        Self { pipe: Some(pipe), open: Vec::new() }
    }

    pub fn end(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    /// Takes all that was told until now.
    pub fn read_into(&mut self, log: &mut TaskLog) {
        let mut buffer = [0; 16 * 1024];
        loop {
            let Some(pipe) = &mut self.pipe else { return };
            match pipe.read(&mut buffer) {
                Ok(length @ 1..) => self.take(&buffer[..length], log),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Ok(0) | Err(_) => self.pipe = None,
            }
        }
    }

    fn take(&mut self, bytes: &[u8], log: &mut TaskLog) {
        self.open.extend_from_slice(bytes);
        while let Some(at) = self.open.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.open.drain(..=at).collect();
            if let Ok(secret) = serde_json::from_slice::<String>(&line) {
                log.hide(&secret);
            }
        }
        if self.open.len() > LONGEST {
            self.open.clear();
        }
    }
}
