//! The arguments of execve(2) for a child, prepared before the fork, because nothing can be allocated after it.

use nix::errno::Errno;
use nix::unistd::Pid;
use std::cell::Cell;
use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Number of bytes reserved for a pid in a prepared environment string.
const PID_WIDTH: usize = 10;

/// The program with its arguments, environment and folder as C strings, prepared before the fork.
pub struct Image {
    program: CString,
    arguments: Vec<CString>,
    environment: Vec<EnvironmentEntry>,
    pub folder: Option<CString>,
}

/// The text that contains a NUL byte, or the name of the variable whose value does.
pub struct NulByte(pub String);

/// Null-terminated arrays of pointers into an [`Image`].
pub struct Pointers {
    arguments: Vec<*const nix::libc::c_char>,
    environment: Vec<*const nix::libc::c_char>,
}

impl Image {
    pub fn new(
        program: &Path,
        argv0: &OsStr,
        arguments: &[OsString],
        environment: &[(OsString, OsString)],
        folder: Option<&Path>,
    ) -> Result<Self, NulByte> {
        Ok(Self {
            program: c_string(program.as_os_str())?,
            arguments: std::iter::once(argv0)
                .chain(arguments.iter().map(OsString::as_os_str))
                .map(c_string)
                .collect::<Result<_, _>>()?,
            environment: environment
                .iter()
                .map(|(name, value)| EnvironmentEntry::new(name, value))
                .collect::<Result<_, _>>()?,
            folder: folder.map(|path| c_string(path.as_os_str())).transpose()?,
        })
    }

    /// Writes the child's own pid into the environment. Called in the child, so it allocates nothing.
    pub fn fill_in_pid(&self) {
        for entry in &self.environment {
            entry.fill_in(nix::unistd::getpid());
        }
    }

    pub fn pointers(&self) -> Pointers {
        Pointers {
            arguments: null_terminated(self.arguments.iter().map(|argument| argument.as_ptr())),
            environment: null_terminated(self.environment.iter().map(EnvironmentEntry::pointer)),
        }
    }

    /// Execs; returns the error number, because a successful exec does not return. `pointers` are those of this image.
    pub fn execute(&self, pointers: &Pointers) -> i32 {
        // SAFETY: both arrays are null-terminated and outlive the call.
        unsafe {
            nix::libc::execve(self.program.as_ptr(), pointers.arguments.as_ptr(), pointers.environment.as_ptr());
        }
        Errno::last_raw()
    }
}

/// `NAME=value`, with the offset of `{PID}` if present.
struct EnvironmentEntry {
    /// Cells, because the child writes its pid through a shared reference.
    text: Box<[Cell<u8>]>,
    pid_at: Option<usize>,
}

impl EnvironmentEntry {
    const PLACEHOLDER: &'static [u8] = b"{PID}";

    fn new(name: &OsString, value: &OsString) -> Result<Self, NulByte> {
        let mut text = [name.as_bytes(), b"=", value.as_bytes()].concat();
        if text.contains(&0) {
            return Err(NulByte(name.to_string_lossy().into_owned()));
        }
        let pid_at = value.as_bytes().eq(Self::PLACEHOLDER).then(|| name.len() + 1);
        if let Some(offset) = pid_at {
            text.truncate(offset);
            text.extend_from_slice(&[0; PID_WIDTH]);
        }
        text.push(0);
        Ok(Self { text: text.into_iter().map(Cell::new).collect(), pid_at })
    }

    fn pointer(&self) -> *const nix::libc::c_char {
        self.text.as_ptr().cast()
    }

    /// Writes the digits of `pid` into the reserved bytes.
    fn fill_in(&self, pid: Pid) {
        let Some(start) = self.pid_at else { return };
        let mut digits = [0u8; PID_WIDTH];
        let mut remaining = pid.as_raw().unsigned_abs();
        let mut length = 0;
        while remaining > 0 {
            digits[length] = b'0' + (remaining % 10) as u8;
            remaining /= 10;
            length += 1;
        }
        for (byte, digit) in self.text[start..].iter().zip(digits[..length].iter().rev()) {
            byte.set(*digit);
        }
    }
}

fn c_string(text: &OsStr) -> Result<CString, NulByte> {
    CString::new(text.as_bytes()).map_err(|_| NulByte(text.to_string_lossy().into_owned()))
}

fn null_terminated(pointers: impl Iterator<Item = *const nix::libc::c_char>) -> Vec<*const nix::libc::c_char> {
    pointers.chain([std::ptr::null()]).collect()
}
