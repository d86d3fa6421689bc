//! The pipe through which a task reports secret values to its keeper before it uses them, one JSON string per line. The
//! keeper masks these values in the output of the task and of its children.

use super::log::TaskLog;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};

/// Maximum size of a line, more than any credential needs; longer lines are dropped.
const MAX_LINE_BYTES: usize = 4 * 1024 * 1024;

pub struct SecretsPipe {
    pipe: Option<File>,
    /// An incomplete last line.
    partial_line: Vec<u8>,
}

impl SecretsPipe {
    pub fn new(pipe: File) -> Self {
        Self { pipe: Some(pipe), partial_line: Vec::new() }
    }

    /// The descriptor to wait for; `None` once the task has closed the pipe.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    /// Reads all secrets reported so far into the log's masker.
    pub fn read_into(&mut self, log: &mut TaskLog) {
        let mut buffer = [0; 16 * 1024];
        loop {
            let Some(pipe) = &mut self.pipe else { return };
            match pipe.read(&mut buffer) {
                Ok(length @ 1..) => self.add_bytes(&buffer[..length], log),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Ok(0) | Err(_) => self.pipe = None,
            }
        }
    }

    fn add_bytes(&mut self, bytes: &[u8], log: &mut TaskLog) {
        self.partial_line.extend_from_slice(bytes);
        while let Some(position) = self.partial_line.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.partial_line.drain(..=position).collect();
            if let Ok(secret) = serde_json::from_slice::<String>(&line) {
                log.add_secret(&secret);
            }
        }
        if self.partial_line.len() > MAX_LINE_BYTES {
            self.partial_line.clear();
        }
    }
}
