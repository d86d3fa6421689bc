//! Reads a secret from the terminal without echo.

use super::poll::wait_readable;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::time::Duration;

/// Shows `prompt` on stderr and reads a line from stdin without echo. Fails with `Interrupted` on Ctrl-C and
/// `UnexpectedEof` on Ctrl-D. The terminal is restored in every case, also when a signal terminates this process.
pub fn read_secret(prompt: &str) -> io::Result<String> {
    let mut stderr = io::stderr().lock();
    write!(stderr, "{prompt} ")?;
    stderr.flush()?;
    let outcome = Silent::begin().and_then(|silent| read_line(&mut WatchedInput { stdin: io::stdin(), silent }));
    writeln!(stderr)?;
    outcome
}

/// The bytes of stdin. A terminating signal ends the reading; the terminal is restored before the signal acts.
struct WatchedInput {
    stdin: io::Stdin,
    silent: Silent,
}

const TERMINATING: [Signal; 2] = [Signal::SIGTERM, Signal::SIGHUP];

/// Interval of checks for a signal while no character comes.
const SIGNAL_CHECK_INTERVAL: Duration = Duration::from_millis(100);

impl Iterator for WatchedInput {
    type Item = io::Result<u8>;

    fn next(&mut self) -> Option<io::Result<u8>> {
        loop {
            if is_pending(&TERMINATING) {
                self.silent.restore();
                // The signal was blocked; unblocking it delivers it.
                let _ = self.silent.blocked.thread_unblock();
                return Some(Err(io::ErrorKind::Interrupted.into()));
            }
            match wait_readable([Some(self.stdin.as_fd())], Some(SIGNAL_CHECK_INTERVAL)) {
                Ok([true]) => {}
                Ok([false]) => continue,
                Err(error) => return Some(Err(error)),
            }
            let mut byte = [0];
            match nix::unistd::read(&self.stdin, &mut byte) {
                Ok(0) => return None,
                Ok(_) => return Some(Ok(byte[0])),
                Err(nix::Error::EINTR | nix::Error::EAGAIN) => {}
                Err(error) => return Some(Err(error.into())),
            }
        }
    }
}

/// True if one of these blocked signals was sent to this process.
fn is_pending(signals: &[Signal]) -> bool {
    let mut pending = std::mem::MaybeUninit::<nix::libc::sigset_t>::zeroed();
    // SAFETY: sigpending(2) fills the set, and fails only for an invalid address.
    let pending = unsafe {
        nix::libc::sigpending(pending.as_mut_ptr());
        SigSet::from_sigset_t_unchecked(pending.assume_init())
    };
    signals.iter().any(|signal| pending.contains(*signal))
}

/// True when a prompt is possible: stdin and stderr are terminals.
pub fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// The terminal without echo and without signals from keys, which arrive as characters instead, so that nothing
/// terminates this process before the terminal is restored.
struct Silent {
    before: Termios,
    blocked: SigSet,
}

impl Silent {
    fn begin() -> io::Result<Self> {
        let blocked: SigSet = TERMINATING.into_iter().collect();
        let before = tcgetattr(io::stdin())?;
        blocked.thread_block()?;
        let mut silent = before.clone();
        silent.local_flags.remove(LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG);
        let silenced = Self { before, blocked };
        tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &silent)?;
        Ok(silenced)
    }

    fn restore(&self) {
        // A failure means that the terminal no longer exists.
        let _ = tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &self.before);
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        self.restore();
        let _ = self.blocked.thread_unblock();
    }
}

/// Reads characters until Enter and handles the editing keys.
fn read_line(input: &mut impl Iterator<Item = io::Result<u8>>) -> io::Result<String> {
    let mut typed: Vec<u8> = Vec::new();
    for byte in input {
        match byte? {
            b'\r' | b'\n' => return decode(typed),
            0x03 => return Err(io::ErrorKind::Interrupted.into()),
            0x04 if typed.is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
            // Backspace as sent by either kind of terminal; removes a whole character.
            0x08 | 0x7f => while typed.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {},
            // Ctrl-U clears the line.
            0x15 => typed.clear(),
            byte => typed.push(byte),
        }
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}

fn decode(typed: Vec<u8>) -> io::Result<String> {
    String::from_utf8(typed).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the input is not valid UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn supports_editing_keys() {
        let typed = |keys: &str| read_line(&mut keys.bytes().map(Ok));
        assert_eq!(typed("secret\n").unwrap(), "secret");
        assert_eq!(typed("sü\u{7f}ecret\r").unwrap(), "secret");
        assert_eq!(typed("wrong\u{15}right\n").unwrap(), "right");
        assert_eq!(typed("sec\u{3}").unwrap_err().kind(), io::ErrorKind::Interrupted);
        assert_eq!(typed("\u{4}").unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(typed("cut").unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
