//! The pipe through which a task reports secret values to its keeper before it uses them, one JSON string per line. The
//! keeper masks these values in the output of the task and of its children.

use super::log::TaskLog;
use std::io;
use tokio::net::unix::pipe::Receiver;

/// Maximum size of a line, more than any credential needs; longer lines are dropped.
const MAX_LINE_BYTES: usize = 4 * 1024 * 1024;

pub struct SecretsPipe {
    pipe: Option<Receiver>,
    /// An incomplete last line.
    partial_line: Vec<u8>,
}

impl SecretsPipe {
    pub fn new(pipe: Receiver) -> Self {
        Self { pipe: Some(pipe), partial_line: Vec::new() }
    }

    /// The pipe to wait for; `None` once the task has closed it.
    pub fn pipe(&self) -> Option<&Receiver> {
        self.pipe.as_ref()
    }

    /// Reads all secrets reported so far into the log's masker.
    pub fn read_into(&mut self, log: &mut TaskLog) {
        let mut buffer = [0; 16 * 1024];
        // The runtime may not know yet that the pipe has data, so the pipe itself is asked last.
        let mut is_known = true;
        while let Some(pipe) = &self.pipe {
            let read = match is_known {
                true => pipe.try_read(&mut buffer),
                false => nix::unistd::read(pipe, &mut buffer).map_err(io::Error::from),
            };
            match read {
                Ok(length @ 1..) => self.add_bytes(&buffer[..length], log),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => match is_known {
                    true => is_known = false,
                    false => return,
                },
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
