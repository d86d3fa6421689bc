//! Starting a supervised child with exactly the descriptors it should have.
//!
//! `std::process::Command` cannot do this: its own error pipe may sit on a descriptor number that
//! we have to give away, and it cannot tell the child its own pid (`LISTEN_PID`). So this is fork
//! and exec by hand. Everything is prepared before the fork; after it only system calls are made.

use super::process::Signal;
use super::user_namespace::SingleUser;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::signal::{SigSet, SigmaskHow};
use nix::unistd::{ForkResult, Pid};
use std::ffi::{CStr, CString, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// The first descriptor that systemd's protocol hands over, sd_listen_fds(3).
pub const FIRST_PASSED: RawFd = 3;
/// How many can be handed over: room that needs no memory after the fork.
const MOST_PASSED: usize = 8;

/// What to start. `passed` appear as descriptors 3, 4, … in the child; nothing else is inherited
/// but output and error. The environment is exactly `environment`; `{PID}` in a value is replaced
/// by the child's own pid.
pub struct Spawn<'a> {
    pub program: PathBuf,
    /// `argv[0]`, when it is not the program's path.
    pub called: Option<OsString>,
    pub arguments: Vec<OsString>,
    pub environment: Vec<(OsString, OsString)>,
    pub output: BorrowedFd<'a>,
    /// Where errors go, when that is not where output goes.
    pub errors: Option<BorrowedFd<'a>>,
    /// The folder to start in, when it is not ours.
    pub folder: Option<PathBuf>,
    pub passed: Vec<BorrowedFd<'a>>,
    pub single_user: Option<SingleUser>,
    /// Sent to the child by the kernel when the *thread* that started it ends.
    pub parent_death: Option<Signal>,
    /// Whether it has a session of its own, which what it starts cannot leave for ours; else only a group.
    pub own_session: bool,
}

/// Where between fork and exec it failed.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    #[error("{0} contains a NUL byte")]
    Nul(String),
    #[error("the system refuses another process: {0}")]
    Fork(io::Error),
    #[error(
        "PostgreSQL refuses to run as root, and a user namespace, which would help, is not allowed here ({0}); run leoflow as an ordinary user"
    )]
    UserNamespace(io::Error),
    #[error("cannot work in {folder}: {source}")]
    Folder { folder: PathBuf, source: io::Error },
    #[error("cannot run {program}: {source}")]
    Exec { program: PathBuf, source: io::Error },
}

impl SpawnError {
    /// The system's error, where it is one.
    pub(super) fn source_error(&self) -> Option<&io::Error> {
        match self {
            Self::Nul(_) => None,
            Self::Fork(source)
            | Self::UserNamespace(source)
            | Self::Folder { source, .. }
            | Self::Exec { source, .. } => Some(source),
        }
    }
}

const STAGE_NAMESPACE: u8 = 1;
const STAGE_EXEC: u8 = 2;
const STAGE_FOLDER: u8 = 3;
/// Room for any pid in a prepared environment string.
const PID_WIDTH: usize = 10;

impl Spawn<'_> {
    /// Forks and execs; returns the child's pid once the new program runs. The child leads a
    /// process group of its own. Must be called from the main thread when `parent_death` is set.
    pub fn start(self) -> Result<i32, SpawnError> {
        assert!(self.passed.len() <= MOST_PASSED, "{} descriptors are more than there is room for", self.passed.len());
        let program = c_string(self.program.as_os_str().as_bytes())?;
        let called = self.called.as_deref().unwrap_or(self.program.as_os_str());
        let mut arguments = vec![c_string(called.as_bytes())?];
        for argument in &self.arguments {
            arguments.push(c_string(argument.as_bytes())?);
        }
        let mut environment = Vec::new();
        for (name, value) in &self.environment {
            environment.push(EnvironmentEntry::new(name, value)?);
        }
        let folder = self.folder.as_ref().map(|path| c_string(path.as_os_str().as_bytes())).transpose()?;
        let dev_null = File::open("/dev/null").map_err(SpawnError::Fork)?;
        let (report, reporter) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|e| SpawnError::Fork(e.into()))?;
        let argument_pointers = null_terminated(arguments.iter().map(|a| a.as_ptr()));
        let environment_pointers = null_terminated(environment.iter().map(EnvironmentEntry::pointer));
        let parent = nix::unistd::getpid();

        // SAFETY: in the child only async-signal-safe system calls follow, on memory prepared
        // above; no lock is taken and nothing is allocated or freed before exec or _exit.
        match unsafe { nix::unistd::fork() }.map_err(|e| SpawnError::Fork(e.into()))? {
            ForkResult::Parent { child } => {
                drop(reporter);
                wait_for_exec(report, child, &self)
            }
            ForkResult::Child => {
                for entry in &environment {
                    entry.fill_in(nix::unistd::getpid());
                }
                let failure = self.become_child(&dev_null, reporter.as_raw_fd(), parent, folder.as_deref());
                let (stage, errno, reporter) = match failure {
                    Err(failure) => failure,
                    Ok(reporter) => {
                        // SAFETY: both arrays are null-terminated and outlive the call.
                        unsafe {
                            nix::libc::execve(
                                program.as_ptr(),
                                argument_pointers.as_ptr(),
                                environment_pointers.as_ptr(),
                            )
                        };
                        (STAGE_EXEC, Errno::last_raw(), reporter)
                    }
                };
                let mut message = [0u8; 5];
                message[0] = stage;
                message[1..].copy_from_slice(&errno.to_ne_bytes());
                // SAFETY: plain system calls on a descriptor that is ours and a live buffer.
                unsafe {
                    nix::libc::write(reporter, message.as_ptr().cast(), message.len());
                    nix::libc::_exit(127)
                }
            }
        }
    }

    /// Everything between fork and exec. Returns the error pipe's new place.
    fn become_child(
        &self,
        dev_null: &File,
        reporter: RawFd,
        parent: Pid,
        folder: Option<&CStr>,
    ) -> Result<RawFd, (u8, i32, RawFd)> {
        // The lowest number that nothing is laid out at.
        let floor = FIRST_PASSED + self.passed.len() as RawFd;
        let reporter_high = park(reporter, floor).map_err(|e| (STAGE_EXEC, e as i32, reporter))?;
        let failed = |stage: u8| move |error: Errno| (stage, error as i32, reporter_high);
        let exec = failed(STAGE_EXEC);

        let _ = match self.own_session {
            true => nix::unistd::setsid().map(drop),
            false => nix::unistd::setpgid(Pid::from_raw(0), Pid::from_raw(0)),
        };
        if let Some(single) = &self.single_user {
            let errno = |error: io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(nix::libc::EPERM));
            single.enter().map_err(|e| failed(STAGE_NAMESPACE)(errno(e)))?;
        }
        // After the namespace, whose change of credentials would clear it, prctl(2).
        if let Some(signal) = self.parent_death {
            nix::sys::prctl::set_pdeathsig(Some(signal.to_nix())).map_err(exec)?;
            if nix::unistd::getppid() != parent {
                // The parent died before the line above; the signal will not come any more.
                // SAFETY: ends this process, nothing else.
                unsafe { nix::libc::_exit(127) }
            }
        }
        if let Some(folder) = folder {
            nix::unistd::chdir(folder).map_err(failed(STAGE_FOLDER))?;
        }
        // Low numbers may be in use by what we are about to hand over: park everything above,
        // then lay it out. Parked ones close at exec.
        let output = park(self.output.as_raw_fd(), floor).map_err(exec)?;
        let errors = match self.errors {
            Some(errors) => park(errors.as_raw_fd(), floor).map_err(exec)?,
            None => output,
        };
        let input = park(dev_null.as_raw_fd(), floor).map_err(exec)?;
        let mut waiting = [0; MOST_PASSED];
        for (place, descriptor) in waiting.iter_mut().zip(&self.passed) {
            *place = park(descriptor.as_raw_fd(), floor).map_err(exec)?;
        }
        place_at(input, 0).map_err(exec)?;
        place_at(output, 1).map_err(exec)?;
        place_at(errors, 2).map_err(exec)?;
        for (at, descriptor) in (FIRST_PASSED..).zip(&waiting[..self.passed.len()]) {
            place_at(*descriptor, at).map_err(exec)?;
        }
        close_at_exec_from(floor);
        // Rust ignores SIGPIPE and tokio blocks nothing, but whoever started us may have.
        // SAFETY: sets a disposition to the default; no handler of ours is involved.
        let _ = unsafe {
            nix::sys::signal::signal(nix::sys::signal::Signal::SIGPIPE, nix::sys::signal::SigHandler::SigDfl)
        };
        let _ = nix::sys::signal::sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
        Ok(reporter_high)
    }
}

/// What whoever started us left open, without meaning it for our children, ends at exec.
pub(super) fn close_at_exec_from(first: RawFd) {
    // SAFETY: a system call on numbers; a kernel before 5.11 does not know it, and then what was
    // inherited stays inherited.
    unsafe {
        nix::libc::syscall(nix::libc::SYS_close_range, first, nix::libc::c_uint::MAX, nix::libc::CLOSE_RANGE_CLOEXEC)
    };
}

/// Duplicates `descriptor` to a number of at least `floor`, closed at exec.
fn park(descriptor: RawFd, floor: RawFd) -> Result<RawFd, Errno> {
    // SAFETY: the descriptor is open in this process for the length of the call.
    let borrowed = unsafe { BorrowedFd::borrow_raw(descriptor) };
    fcntl(borrowed, FcntlArg::F_DUPFD_CLOEXEC(floor))
}

/// Puts a copy of a parked descriptor at exactly `to`, kept across exec.
fn place_at(from: RawFd, to: RawFd) -> Result<(), Errno> {
    // SAFETY: `from` is open and, being parked, not `to`; whatever is at `to` may be overwritten:
    // what is still needed of it has been parked before.
    if unsafe { nix::libc::dup2(from, to) } < 0 { Err(Errno::last()) } else { Ok(()) }
}

fn wait_for_exec(report: OwnedFd, child: Pid, spawn: &Spawn<'_>) -> Result<i32, SpawnError> {
    let mut message = Vec::new();
    File::from(report).read_to_end(&mut message).map_err(SpawnError::Fork)?;
    let [stage, errno @ ..] = message.as_slice() else { return Ok(child.as_raw()) };
    let _ = nix::sys::wait::waitpid(child, None);
    let code = errno.try_into().map(i32::from_ne_bytes).unwrap_or(nix::libc::EIO);
    let source = io::Error::from_raw_os_error(code);
    Err(match *stage {
        STAGE_NAMESPACE => SpawnError::UserNamespace(source),
        STAGE_FOLDER => SpawnError::Folder { folder: spawn.folder.clone().unwrap_or_default(), source },
        _ => SpawnError::Exec { program: spawn.program.clone(), source },
    })
}

/// `NAME=value`, with the place of `{PID}` if there is one.
struct EnvironmentEntry {
    text: Box<[u8]>,
    pid_at: Option<usize>,
}

impl EnvironmentEntry {
    const PLACEHOLDER: &'static [u8] = b"{PID}";

    fn new(name: &OsString, value: &OsString) -> Result<Self, SpawnError> {
        let mut text = [name.as_bytes(), b"=", value.as_bytes()].concat();
        if text.contains(&0) {
            return Err(SpawnError::Nul(name.to_string_lossy().into_owned()));
        }
        let pid_at = value.as_bytes().eq(Self::PLACEHOLDER).then(|| name.len() + 1);
        if let Some(at) = pid_at {
            text.truncate(at);
            text.extend_from_slice(&[0; PID_WIDTH]);
        }
        text.push(0);
        Ok(Self { text: text.into_boxed_slice(), pid_at })
    }

    fn pointer(&self) -> *const nix::libc::c_char {
        self.text.as_ptr().cast()
    }

    /// Writes the digits of `pid` into the prepared room.
    fn fill_in(&self, pid: Pid) {
        let Some(at) = self.pid_at else { return };
        let mut digits = [0u8; PID_WIDTH];
        let mut rest = pid.as_raw().unsigned_abs();
        let mut length = 0;
        while rest > 0 {
            digits[length] = b'0' + (rest % 10) as u8;
            rest /= 10;
            length += 1;
        }
        for (offset, digit) in digits[..length].iter().rev().enumerate() {
            // SAFETY: `new` reserved PID_WIDTH bytes at `at`; after the fork this memory is the
            // child's own copy and no other reference to it is used.
            unsafe { self.text.as_ptr().cast_mut().add(at + offset).write_volatile(*digit) };
        }
    }
}

fn c_string(bytes: &[u8]) -> Result<CString, SpawnError> {
    CString::new(bytes).map_err(|_| SpawnError::Nul(String::from_utf8_lossy(bytes).into_owned()))
}

fn null_terminated(pointers: impl Iterator<Item = *const nix::libc::c_char>) -> Vec<*const nix::libc::c_char> {
    pointers.chain([std::ptr::null()]).collect()
}

/// Descriptors that a parent passed by the systemd protocol, with their names, sd_listen_fds(3).
/// `names` is `LISTEN_FDNAMES`. May be called once: it takes ownership of the descriptors.
pub fn take_passed(count: usize, names: &str) -> io::Result<Vec<(String, OwnedFd)>> {
    let mut taken = Vec::new();
    for (at, name) in (0..count).zip(names.split(':').chain(std::iter::repeat(""))) {
        let number = FIRST_PASSED + at as RawFd;
        // SAFETY: a number; one that is not open is an error here and goes no further.
        let open = unsafe { BorrowedFd::borrow_raw(number) };
        fcntl(open, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        // SAFETY: it is open, and the protocol says that it is ours.
        let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
        taken.push((name.to_owned(), descriptor));
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    fn shell(script: &str, environment: &[(&str, &str)], passed: Vec<BorrowedFd<'_>>) -> String {
        let (output, input) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
        let pid = Spawn {
            program: "/bin/sh".into(),
            called: None,
            arguments: vec!["-c".into(), script.into()],
            environment: environment.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect(),
            output: input.as_fd(),
            errors: None,
            folder: None,
            passed,
            single_user: None,
            parent_death: None,
            own_session: false,
        }
        .start()
        .unwrap();
        drop(input);
        let mut text = String::new();
        File::from(output).read_to_string(&mut text).unwrap();
        nix::sys::wait::waitpid(Pid::from_raw(pid), None).unwrap();
        text
    }

    #[test]
    fn a_child_gets_its_environment_its_pid_and_nothing_else() {
        let text =
            shell("echo $$ $LISTEN_PID; env | cut -d= -f1 | sort", &[("LISTEN_PID", "{PID}"), ("A", "b c")], vec![]);
        let mut lines = text.lines();
        let pids: Vec<_> = lines.next().unwrap().split(' ').collect();
        assert_eq!(pids[0], pids[1]);
        let names: Vec<_> = lines.filter(|name| !["PWD", "SHLVL", "_", "OLDPWD"].contains(name)).collect();
        assert_eq!(names, ["A", "LISTEN_PID"]);
    }

    #[test]
    fn passed_descriptors_arrive_at_three_and_on() {
        let (r1, w1) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
        let (r2, w2) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
        // One that somebody before us left open, for nobody.
        let stray = nix::unistd::dup(&w1).unwrap();
        fcntl(&stray, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        let script =
            "echo one >&3; echo two >&4; for n in 0 1 2 3 4 5 6 7 8 9; do [ -e /proc/$$/fd/$n ] && echo $n; done";
        let open = shell(script, &[], vec![w1.as_fd(), w2.as_fd()]);
        assert_eq!(open.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3", "4"]);
        drop((w1, w2, stray));
        for (reader, expected) in [(r1, "one\n"), (r2, "two\n")] {
            let mut text = String::new();
            File::from(reader).read_to_string(&mut text).unwrap();
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error_and_leaves_no_child() {
        let null = File::open("/dev/null").unwrap();
        let error = Spawn {
            program: "/nowhere/at all".into(),
            called: None,
            arguments: vec![],
            environment: vec![],
            output: null.as_fd(),
            errors: None,
            folder: None,
            passed: vec![],
            single_user: None,
            parent_death: None,
            own_session: false,
        }
        .start()
        .unwrap_err();
        assert!(matches!(error, SpawnError::Exec { source, .. } if source.kind() == io::ErrorKind::NotFound));
    }
}
