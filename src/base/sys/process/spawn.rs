//! Starts a child process with exactly the given descriptors.
//!
//! `std::process::Command` cannot do this: the pipe over which it reports errors may have a descriptor number that a
//! passed descriptor must get, and it cannot put the child's own pid into the child's environment (`LISTEN_PID`). So
//! this module calls fork and exec directly. Everything is prepared before the fork; after it, the child only makes
//! system calls.

use super::descriptors::{FIRST_PASSED, close_at_exec_from};
use super::spawn_image::{Image, NulByte};
use super::user_namespace::SingleUser;
use super::{Signal, parent_death, text_busy};
use crate::sys::net::listener;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{SigSet, SigmaskHow};
use nix::unistd::{ForkResult, Pid};
use std::ffi::{CStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;

/// Maximum number of passed descriptors, in a fixed array because memory cannot be allocated after the fork.
const MAX_PASSED: usize = 8;

/// A child to start. In the child, descriptor 0 is `/dev/null`, 1 is the output, 2 is `errors`, and 3, 4, … are those
/// in `passed`; it inherits no others. Its environment is exactly `environment`, but each value `{PID}` is replaced by
/// the child's own pid.
pub struct Spawn<'a> {
    pub program: PathBuf,
    /// `argv[0]`, if it differs from the program's path.
    pub argv0: Option<OsString>,
    pub arguments: Vec<OsString>,
    pub environment: Vec<(OsString, OsString)>,
    /// The descriptor for stderr, if it differs from that for stdout.
    pub errors: Option<BorrowedFd<'a>>,
    /// The working directory, if it differs from ours.
    pub folder: Option<PathBuf>,
    pub passed: Vec<BorrowedFd<'a>>,
    /// The user namespace to enter before exec, for a program that refuses to run as this user.
    pub single_user: Option<SingleUser>,
    /// The signal that the kernel sends to the child when the *thread* that called `start` exits.
    pub parent_death: Option<Signal>,
    /// True if the child leads a session of its own, whose processes cannot join a process group of ours. Otherwise it
    /// only leads a process group.
    pub own_session: bool,
}

/// Why a child could not be started. The child reports a failure between fork and exec to its parent over the error
/// pipe.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    #[error("{0} contains a NUL byte")]
    Nul(String),
    /// The fork failed, or the parent could not open what it needs for the fork, such as a pipe.
    #[error("the system cannot start another process: {0}")]
    SystemLimit(io::Error),
    #[error(
        "PostgreSQL refuses to run as this user, and a user namespace is not allowed here ({0}); \
         run leoflow as an ordinary user"
    )]
    UserNamespace(io::Error),
    #[error("cannot change to the folder {folder}: {source}")]
    Folder { folder: PathBuf, source: io::Error },
    /// Exec failed, or a step before it that has no variant of its own.
    #[error("cannot run {program}: {source}")]
    Exec { program: PathBuf, source: io::Error },
}

impl SpawnError {
    /// The underlying system error, if any.
    pub(crate) fn source_error(&self) -> Option<&io::Error> {
        match self {
            Self::Nul(_) => None,
            Self::SystemLimit(source)
            | Self::UserNamespace(source)
            | Self::Folder { source, .. }
            | Self::Exec { source, .. } => Some(source),
        }
    }
}

// The stage that failed between fork and exec, as sent over the error pipe.
const STAGE_NAMESPACE: u8 = 1;
/// Exec, and all steps before it that are neither of the other stages.
const STAGE_OTHER: u8 = 2;
const STAGE_FOLDER: u8 = 3;

impl Spawn<'_> {
    /// A child without arguments, environment or passed descriptors, which outlives us and leads a process group.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            argv0: None,
            arguments: Vec::new(),
            environment: Vec::new(),
            errors: None,
            folder: None,
            passed: Vec::new(),
            single_user: None,
            parent_death: None,
            own_session: false,
        }
    }

    /// Forks and execs with stdout, and stderr unless `errors` is set, going to `output`; returns the child's pid once
    /// the new program runs. With `parent_death`, must be called from the main thread, which lives as long as the
    /// process.
    pub fn start(self, output: BorrowedFd<'_>) -> Result<i32, SpawnError> {
        text_busy::retry(|| self.try_start(output), |error| error.source_error().is_some_and(text_busy::is_busy))
    }

    fn try_start(&self, output: BorrowedFd<'_>) -> Result<i32, SpawnError> {
        assert!(self.passed.len() <= MAX_PASSED, "{} descriptors exceed the maximum", self.passed.len());
        let image = self.image()?;
        let dev_null = File::open("/dev/null").map_err(SpawnError::SystemLimit)?;
        let (error_reader, error_writer) = listener::pipe().map_err(SpawnError::SystemLimit)?;
        let pointers = image.pointers();
        let parent = nix::unistd::getpid();

        // SAFETY: in the child only async-signal-safe system calls follow, on memory prepared
        // above; no lock is taken and nothing is allocated or freed before exec or _exit.
        match unsafe { nix::unistd::fork() }.map_err(|e| SpawnError::SystemLimit(e.into()))? {
            ForkResult::Parent { child } => {
                drop(error_writer);
                wait_for_exec(error_reader, child, self)
            }
            ForkResult::Child => {
                image.fill_in_pid();
                let error_writer = error_writer.as_raw_fd();
                match self.become_child([dev_null.as_fd(), output], error_writer, parent, image.folder.as_deref()) {
                    Err((failure, error_writer)) => report_and_exit(failure, error_writer),
                    Ok(error_writer) => {
                        let errno = image.execute(&pointers);
                        report_and_exit(Failure { stage: STAGE_OTHER, errno }, error_writer)
                    }
                }
            }
        }
    }

    fn image(&self) -> Result<Image, SpawnError> {
        let argv0 = self.argv0.as_deref().unwrap_or(self.program.as_os_str());
        Image::new(&self.program, argv0, &self.arguments, &self.environment, self.folder.as_deref())
            .map_err(|NulByte(name)| SpawnError::Nul(name))
    }

    /// Performs all steps between fork and exec, and first moves the error pipe's write end out of the way of the
    /// passed descriptors. Returns the number to which the write end was moved; after a failure, the failure and the
    /// write end to report it to.
    fn become_child(
        &self,
        input_and_output: [BorrowedFd<'_>; 2],
        error_writer: RawFd,
        parent: Pid,
        folder: Option<&CStr>,
    ) -> Result<RawFd, (Failure, RawFd)> {
        // In the new program, the descriptors below this number are the standard and the passed ones.
        let first_unassigned = FIRST_PASSED + self.passed.len() as RawFd;
        let moved_error_writer = duplicate_at_or_above(error_writer, first_unassigned)
            .map_err(|error| (failed_at(STAGE_OTHER)(error), error_writer))?;
        self.lead_own_group();
        let prepare = || {
            self.enter_user_namespace()?;
            // After the namespace, because entering it changes the process's credentials, which clears the signal,
            // prctl(2).
            self.die_with_parent(parent)?;
            if let Some(folder) = folder {
                nix::unistd::chdir(folder).map_err(failed_at(STAGE_FOLDER))?;
            }
            self.place_descriptors(input_and_output, first_unassigned).map_err(failed_at(STAGE_OTHER))
        };
        prepare().map_err(|failure| (failure, moved_error_writer))?;
        close_at_exec_from(first_unassigned);
        reset_signals();
        Ok(moved_error_writer)
    }

    /// Makes the child the leader of its own session or process group.
    fn lead_own_group(&self) {
        let _ = match self.own_session {
            true => nix::unistd::setsid().map(drop),
            false => nix::unistd::setpgid(Pid::from_raw(0), Pid::from_raw(0)),
        };
    }

    fn enter_user_namespace(&self) -> Result<(), Failure> {
        let Some(single_user) = &self.single_user else { return Ok(()) };
        let errno = |error: io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(nix::libc::EPERM));
        single_user.enter().map_err(|e| failed_at(STAGE_NAMESPACE)(errno(e)))
    }

    /// Requests the signal for the parent's death, and exits if the parent is already dead.
    fn die_with_parent(&self, parent: Pid) -> Result<(), Failure> {
        let Some(signal) = self.parent_death else { return Ok(()) };
        parent_death::request(signal).map_err(failed_at(STAGE_OTHER))?;
        if nix::unistd::getppid() != parent {
            // The parent died before the call above, so the signal will not come.
            // SAFETY: exits this process, nothing else.
            unsafe { nix::libc::_exit(127) }
        }
        Ok(())
    }

    /// Gives the standard and the passed descriptors their final numbers, which are below `first_unassigned`. A
    /// descriptor may already have the final number of another, so all are first duplicated to higher numbers. Those
    /// duplicates close at exec.
    fn place_descriptors(&self, [input, output]: [BorrowedFd<'_>; 2], first_unassigned: RawFd) -> Result<(), Errno> {
        let move_up = |descriptor: RawFd| duplicate_at_or_above(descriptor, first_unassigned);
        let output = move_up(output.as_raw_fd())?;
        let errors = match self.errors {
            Some(errors) => move_up(errors.as_raw_fd())?,
            None => output,
        };
        let input = move_up(input.as_raw_fd())?;
        let mut moved = [0; MAX_PASSED];
        for (slot, descriptor) in moved.iter_mut().zip(&self.passed) {
            *slot = move_up(descriptor.as_raw_fd())?;
        }
        place_at(input, 0)?;
        place_at(output, 1)?;
        place_at(errors, 2)?;
        for (number, descriptor) in (FIRST_PASSED..).zip(&moved[..self.passed.len()]) {
            place_at(*descriptor, number)?;
        }
        Ok(())
    }
}

/// The stage between fork and exec that failed, and the error number.
struct Failure {
    stage: u8,
    errno: i32,
}

/// Converts an error into the failure of `stage`.
fn failed_at(stage: u8) -> impl Fn(Errno) -> Failure {
    move |error| Failure { stage, errno: error as i32 }
}

/// Sends a failure over the error pipe and exits the child.
fn report_and_exit(failure: Failure, error_writer: RawFd) -> ! {
    let mut message = [0u8; 5];
    message[0] = failure.stage;
    message[1..].copy_from_slice(&failure.errno.to_ne_bytes());
    // SAFETY: plain system calls; the descriptor is this process's own, and the buffer outlives the call.
    unsafe {
        nix::libc::write(error_writer, message.as_ptr().cast(), message.len());
        nix::libc::_exit(127)
    }
}

/// Restores the default handling of signals, which exec would otherwise pass on changed: Rust ignores SIGPIPE, and the
/// process that started ours may have blocked signals.
fn reset_signals() {
    // SAFETY: sets a disposition to the default; no handler of ours is involved.
    let _ =
        unsafe { nix::sys::signal::signal(nix::sys::signal::Signal::SIGPIPE, nix::sys::signal::SigHandler::SigDfl) };
    let _ = nix::sys::signal::sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
}

/// Duplicates `descriptor` to the lowest free number that is at least `minimum`, with close-on-exec.
fn duplicate_at_or_above(descriptor: RawFd, minimum: RawFd) -> Result<RawFd, Errno> {
    // SAFETY: the descriptor is open in this process during the call.
    let borrowed = unsafe { BorrowedFd::borrow_raw(descriptor) };
    fcntl(borrowed, FcntlArg::F_DUPFD_CLOEXEC(minimum))
}

/// Duplicates a descriptor to exactly the number `to`, without close-on-exec.
fn place_at(from: RawFd, to: RawFd) -> Result<(), Errno> {
    // SAFETY: `from` is open, and differs from `to` because it was moved to a higher number. `to` may be overwritten,
    // because every descriptor that is still needed was moved before.
    if unsafe { nix::libc::dup2(from, to) } < 0 { Err(Errno::last()) } else { Ok(()) }
}

/// Reads the error pipe, which closes without a message once the new program runs.
fn wait_for_exec(error_reader: OwnedFd, child: Pid, spawn: &Spawn<'_>) -> Result<i32, SpawnError> {
    let mut message = Vec::new();
    File::from(error_reader).read_to_end(&mut message).map_err(SpawnError::SystemLimit)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, environment: &[(&str, &str)], passed: Vec<BorrowedFd<'_>>) -> String {
        let (output, input) = listener::pipe().unwrap();
        let pid = Spawn {
            arguments: vec!["-c".into(), script.into()],
            environment: environment.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect(),
            passed,
            ..Spawn::new("/bin/sh")
        }
        .start(input.as_fd())
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
    fn passed_descriptors_start_at_three() {
        let ((r1, w1), (r2, w2)) = (listener::pipe().unwrap(), listener::pipe().unwrap());
        // A descriptor inherited unintentionally.
        let inherited = nix::unistd::dup(&w1).unwrap();
        fcntl(&inherited, FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
        let script =
            "echo one >&3; echo two >&4; for n in 0 1 2 3 4 5 6 7 8 9; do [ -e /proc/$$/fd/$n ] && echo $n; done";
        let open = shell(script, &[], vec![w1.as_fd(), w2.as_fd()]);
        assert_eq!(open.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3", "4"]);
        drop((w1, w2, inherited));
        for (reader, expected) in [(r1, "one\n"), (r2, "two\n")] {
            let mut text = String::new();
            File::from(reader).read_to_string(&mut text).unwrap();
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn a_missing_program_is_an_error() {
        let null = File::open("/dev/null").unwrap();
        let error = Spawn::new("/nowhere/at all").start(null.as_fd()).unwrap_err();
        assert!(matches!(error, SpawnError::Exec { source, .. } if source.kind() == io::ErrorKind::NotFound));
    }
}
