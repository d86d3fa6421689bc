//! Asking for a secret on the terminal, which does not show what is typed.

use nix::sys::termios::{LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcgetattr, tcsetattr};
use std::io::{self, BufRead, IsTerminal, Read as _, Write};

/// Shows `prompt` on stderr and reads a line from stdin without echo. An error of kind `Interrupted`
/// on Ctrl-C and `UnexpectedEof` on Ctrl-D; the terminal is as before in each case.
pub fn read_secret(prompt: &str) -> io::Result<String> {
    let mut stderr = io::stderr().lock();
    write!(stderr, "{prompt} ")?;
    stderr.flush()?;
    let outcome = Silent::begin().and_then(|_silent| read_line(&mut io::stdin().lock()));
    writeln!(stderr)?;
    outcome
}

/// Whether questions can be asked: somebody types, and somebody sees the question.
pub fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// The terminal without echo and without signals from keys, which come as characters instead: so
/// that nothing ends this process before the terminal is put back.
struct Silent(Termios);

impl Silent {
    fn begin() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut silent = before.clone();
        silent.local_flags.remove(LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG);
        silent.control_chars[SpecialCharacterIndices::VMIN as usize] = 1;
        silent.control_chars[SpecialCharacterIndices::VTIME as usize] = 0;
        tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &silent)?;
        Ok(Self(before))
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        // Nothing can be done for a terminal that has gone.
        let _ = tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &self.0);
    }
}

fn read_line(input: &mut impl BufRead) -> io::Result<String> {
    let mut typed: Vec<u8> = Vec::new();
    for byte in input.bytes() {
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
        let typed = |keys: &str| read_line(&mut keys.as_bytes());
        assert_eq!(typed("secret\n").unwrap(), "secret");
        assert_eq!(typed("sü\u{7f}ecret\r").unwrap(), "secret");
        assert_eq!(typed("wrong\u{15}right\n").unwrap(), "right");
        assert_eq!(typed("sec\u{3}").unwrap_err().kind(), io::ErrorKind::Interrupted);
        assert_eq!(typed("\u{4}").unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(typed("cut").unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
