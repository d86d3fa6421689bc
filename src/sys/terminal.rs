//! Asking for a secret on the terminal, which does not show what is typed.

use super::signals::wait_readable;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcgetattr, tcsetattr};
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;

/// Shows `prompt` on stderr and reads a line from stdin without echo. An error of kind `Interrupted`
/// on Ctrl-C and `UnexpectedEof` on Ctrl-D; the terminal is as before in each case, also when a signal
/// ends this process meanwhile.
pub fn read_secret(prompt: &str) -> io::Result<String> {
    let mut stderr = io::stderr().lock();
    write!(stderr, "{prompt} ")?;
    stderr.flush()?;
    let outcome = Silent::begin().and_then(|silent| read_line(&mut Watched { stdin: io::stdin(), silent }));
    writeln!(stderr)?;
    outcome
}

/// Stdin, with an eye on the signals that end a process: the terminal is put back before they do.
struct Watched {
    stdin: io::Stdin,
    silent: Silent,
}

const ENDING: [Signal; 2] = [Signal::SIGTERM, Signal::SIGHUP];

impl Iterator for Watched {
    type Item = io::Result<u8>;

    fn next(&mut self) -> Option<io::Result<u8>> {
        loop {
            match wait_readable([Some(self.stdin.as_fd()), Some(self.silent.signals.as_fd())], None) {
                Ok([_, true]) => {
                    self.silent.put_back();
                    // Held back until now; it acts when it is let through.
                    let _ = self.silent.held.thread_unblock();
                    return Some(Err(io::ErrorKind::Interrupted.into()));
                }
                Ok([true, _]) => {
                    let mut byte = [0];
                    return match nix::unistd::read(&self.stdin, &mut byte) {
                        Ok(0) => None,
                        Ok(_) => Some(Ok(byte[0])),
                        Err(error) => Some(Err(error.into())),
                    };
                }
                Ok(_) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// Whether questions can be asked: somebody types, and somebody sees the question.
pub fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// The terminal without echo and without signals from keys, which come as characters instead: so
/// that nothing ends this process before the terminal is put back.
struct Silent {
    before: Termios,
    held: SigSet,
    signals: SignalFd,
}

impl Silent {
    fn begin() -> io::Result<Self> {
        let held: SigSet = ENDING.into_iter().collect();
        let signals = SignalFd::with_flags(&held, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let before = tcgetattr(io::stdin())?;
        held.thread_block()?;
        let mut silent = before.clone();
        silent.local_flags.remove(LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG);
        silent.control_chars[SpecialCharacterIndices::VMIN as usize] = 1;
        silent.control_chars[SpecialCharacterIndices::VTIME as usize] = 0;
        let silenced = Self { before, held, signals };
        tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &silent)?;
        Ok(silenced)
    }

    fn put_back(&self) {
        // Nothing can be done for a terminal that has gone.
        let _ = tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &self.before);
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        self.put_back();
        let _ = self.held.thread_unblock();
    }
}

fn read_line(input: &mut impl Iterator<Item = io::Result<u8>>) -> io::Result<String> {
    let mut typed: Vec<u8> = Vec::new();
    for byte in input {
        match byte? {
            b'\r' | b'\n' => return text(typed),
            0x03 => return Err(io::ErrorKind::Interrupted.into()),
            0x04 if typed.is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
            // Backspace, as either kind of terminal sends it: a whole character goes.
            0x08 | 0x7f => while typed.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {},
            // Ctrl-U takes the whole line back.
            0x15 => typed.clear(),
            byte => typed.push(byte),
        }
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}

fn text(typed: Vec<u8>) -> io::Result<String> {
    String::from_utf8(typed).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "what was typed is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_edit_edit() {
        let typed = |keys: &str| read_line(&mut keys.bytes().map(Ok));
        assert_eq!(typed("secret\n").unwrap(), "secret");
        assert_eq!(typed("sü\u{7f}ecret\r").unwrap(), "secret");
        assert_eq!(typed("wrong\u{15}right\n").unwrap(), "right");
        assert_eq!(typed("sec\u{3}").unwrap_err().kind(), io::ErrorKind::Interrupted);
        assert_eq!(typed("\u{4}").unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(typed("cut").unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
