//! The pipe from a task to its keeper, with one JSON value per line: a secret as a string, before the task uses it, so that
//! the keeper masks it in the output of the task and of its children; and `null` when the task's own code begins.

use super::log::TaskLog;
use std::io;
use tokio::net::unix::pipe::Receiver;
use tokio::time::Instant;

/// Maximum size of a line, more than any credential needs; longer lines are dropped.
const MAX_LINE_BYTES: usize = 4 * 1024 * 1024;

pub struct TaskPipe {
    pipe: Option<Receiver>,
    /// When the task's own code began.
    began: Option<Instant>,
    /// An incomplete last line.
    partial_line: Vec<u8>,
}

impl TaskPipe {
    pub fn new(pipe: Receiver) -> Self {
        Self { pipe: Some(pipe), began: None, partial_line: Vec::new() }
    }

    /// The pipe to wait for; `None` once the task has closed it.
    pub fn pipe(&self) -> Option<&Receiver> {
        self.pipe.as_ref()
    }

    pub fn began(&self) -> Option<Instant> {
        self.began
    }

    /// Reads all that was sent so far; secrets go into the log's masker.
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
            match serde_json::from_slice::<Option<String>>(&line) {
                Ok(Some(secret)) => log.add_secret(&secret),
                // The task may run others in its process: only the first begin is its own.
                Ok(None) => self.began = self.began.or_else(|| Some(Instant::now())),
                Err(_) => {}
            }
        }
        if self.partial_line.len() > MAX_LINE_BYTES {
            self.partial_line.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_reports_secrets_and_its_begin() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = TaskLog::open(&folder.path().join("1.log")).unwrap();
        let (reader, writer) = leoflow_base::sys::net::listener::pipe_with_async_reader().unwrap();
        let mut pipe = TaskPipe::new(reader);
        let mut send = |text: &str| {
            nix::unistd::write(&writer, text.as_bytes()).unwrap();
            pipe.read_into(&mut log);
            pipe.began()
        };
        assert_eq!(send("\"p\\u00e4sswort\"\nnu"), None);
        let began = send("ll\n");
        assert!(began.is_some());
        assert_eq!(send("null\n"), began, "of a task that the task runs");
        log.write_output("a p\u{e4}sswort\n".as_bytes());
        log.close();
        let text = std::fs::read_to_string(folder.path().join("1.log")).unwrap();
        assert!(text.ends_with("a ***\n"), "{text}");
    }
}
