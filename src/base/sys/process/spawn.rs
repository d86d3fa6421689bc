//! Starts a supervised child with exactly the given descriptors.
//!
//! `std::process::Command` cannot do this: its error pipe may occupy a descriptor number that must be passed, and it
//! cannot put the child's own pid into its environment (`LISTEN_PID`). So this module forks and execs itself.
//! Everything is prepared before the fork; after it only system calls are made.

use super::Signal;
use super::spawn_image::{Image, NulByte};
use super::user_namespace::SingleUser;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::signal::{SigSet, SigmaskHow};
use nix::unistd::{ForkResult, Pid};
use std::ffi::{CStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;

/// The first descriptor passed by systemd's protocol, sd_listen_fds(3).
pub const FIRST_PASSED: RawFd = 3;
/// Maximum number of passed descriptors, in a fixed array because memory cannot be allocated after the fork.
const MAX_PASSED: usize = 8;

/// A child to start. `passed` appear as descriptors 3, 4, … in the child; besides them it inherits only output and
/// error. The environment is exactly `environment`; the value `{PID}` is replaced by the child's own pid.
pub struct Spawn<'a> {
    pub program: PathBuf,
    /// `argv[0]`, if it differs from the program's path.
    pub argv0: Option<OsString>,
    pub arguments: Vec<OsString>,
    pub environment: Vec<(OsString, OsString)>,
    pub output: BorrowedFd<'a>,
    /// The descriptor for stderr, if it differs from `output`.
    pub errors: Option<BorrowedFd<'a>>,
    /// The working directory, if it differs from ours.
    pub folder: Option<PathBuf>,
    pub passed: Vec<BorrowedFd<'a>>,
    pub single_user: Option<SingleUser>,
    /// Sent to the child by the kernel when the *thread* that started it exits.
    pub parent_death: Option<Signal>,
    /// True for a session of its own, from which its descendants cannot join ours; otherwise only a process group.
    pub own_session: bool,
}

/// Why a start failed, by the step between fork and exec.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    #[error("{0} contains a NUL byte")]
    Nul(String),
    /// The fork failed, or something that it needs, such as a pipe.
    #[error("the system cannot start another process: {0}")]
    SystemLimit(io::Error),
    #[error(
        "PostgreSQL refuses to run as root, and a user namespace is not allowed here ({0}); run leoflow as an ordinary user"
    )]
    UserNamespace(io::Error),
    #[error("cannot change to the folder {folder}: {source}")]
    Folder { folder: PathBuf, source: io::Error },
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

/// The step that failed between fork and exec, as sent over the error pipe.
const STAGE_NAMESPACE: u8 = 1;
const STAGE_EXEC: u8 = 2;
const STAGE_FOLDER: u8 = 3;
impl<'a> Spawn<'a> {
    /// A child without arguments, environment or passed descriptors, which outlives us and leads a process group. Its
    /// output and errors go to `output`.
    pub fn new(program: impl Into<PathBuf>, output: BorrowedFd<'a>) -> Self {
        Self {
            program: program.into(),
            argv0: None,
            arguments: Vec::new(),
            environment: Vec::new(),
            output,
            errors: None,
            folder: None,
            passed: Vec::new(),
            single_user: None,
            parent_death: None,
            own_session: false,
        }
    }
}

impl Spawn<'_> {
    /// Forks and execs; returns the child's pid once the new program runs. The child leads its own process group. Must
    /// be called from the main thread when `parent_death` is set.
    pub fn start(self) -> Result<i32, SpawnError> {
        assert!(self.passed.len() <= MAX_PASSED, "{} descriptors exceed the maximum", self.passed.len());
        let image = self.image()?;
        let dev_null = File::open("/dev/null").map_err(SpawnError::SystemLimit)?;
        let (error_reader, error_writer) =
            nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|e| SpawnError::SystemLimit(e.into()))?;
        let pointers = image.pointers();
        let parent = nix::unistd::getpid();

        // SAFETY: in the child only async-signal-safe system calls follow, on memory prepared
        // above; no lock is taken and nothing is allocated or freed before exec or _exit.
        match unsafe { nix::unistd::fork() }.map_err(|e| SpawnError::SystemLimit(e.into()))? {
            ForkResult::Parent { child } => {
                drop(error_writer);
                wait_for_exec(error_reader, child, &self)
            }
            ForkResult::Child => {
                image.fill_in_pid();
                let error_writer = error_writer.as_raw_fd();
                match self.become_child(&dev_null, error_writer, parent, image.folder.as_deref()) {
                    Err((failure, error_writer)) => report_and_exit(failure, error_writer),
                    Ok(error_writer) => {
                        let errno = image.execute(&pointers);
                        report_and_exit(Failure { stage: STAGE_EXEC, errno }, error_writer)
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

    /// Runs all steps between fork and exec. Returns the new number of the error pipe's write end, or the failure and
    /// that descriptor.
    fn become_child(
        &self,
        dev_null: &File,
        error_writer: RawFd,
        parent: Pid,
        folder: Option<&CStr>,
    ) -> Result<RawFd, (Failure, RawFd)> {
        // The lowest number above the passed descriptors.
        let floor = FIRST_PASSED + self.passed.len() as RawFd;
        let parked_error_writer = park(error_writer, floor).map_err(|e| (failed_at(STAGE_EXEC)(e), error_writer))?;
        self.leave_group();
        let prepare = || {
            self.enter_user_namespace()?;
            // Set after the namespace is entered, whose change of credentials would clear the signal, prctl(2).
            self.die_with(parent)?;
            if let Some(folder) = folder {
                nix::unistd::chdir(folder).map_err(failed_at(STAGE_FOLDER))?;
            }
            self.place_descriptors(dev_null, floor).map_err(failed_at(STAGE_EXEC))
        };
        prepare().map_err(|failure| (failure, parked_error_writer))?;
        close_at_exec_from(floor);
        reset_signals();
        Ok(parked_error_writer)
    }

    fn leave_group(&self) {
        let _ = match self.own_session {
            true => nix::unistd::setsid().map(drop),
            false => nix::unistd::setpgid(Pid::from_raw(0), Pid::from_raw(0)),
        };
    }

    fn enter_user_namespace(&self) -> Result<(), Failure> {
        let Some(single) = &self.single_user else { return Ok(()) };
        let errno = |error: io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(nix::libc::EPERM));
        single.enter().map_err(|e| failed_at(STAGE_NAMESPACE)(errno(e)))
    }

    /// Requests the signal for the parent's death, and exits if the parent is dead already.
    fn die_with(&self, parent: Pid) -> Result<(), Failure> {
        let Some(signal) = self.parent_death else { return Ok(()) };
        nix::sys::prctl::set_pdeathsig(Some(signal.to_nix())).map_err(failed_at(STAGE_EXEC))?;
        if nix::unistd::getppid() != parent {
            // The parent died before the call above, so the signal will not come.
            // SAFETY: exits this process, nothing else.
            unsafe { nix::libc::_exit(127) }
        }
        Ok(())
    }

    /// Gives all descriptors their final numbers. Descriptors to pass may already use low numbers: all are first moved
    /// above `floor`. The moved ones close at exec.
    fn place_descriptors(&self, dev_null: &File, floor: RawFd) -> Result<(), Errno> {
        let output = park(self.output.as_raw_fd(), floor)?;
        let errors = match self.errors {
            Some(errors) => park(errors.as_raw_fd(), floor)?,
            None => output,
        };
        let input = park(dev_null.as_raw_fd(), floor)?;
        let mut parked = [0; MAX_PASSED];
        for (slot, descriptor) in parked.iter_mut().zip(&self.passed) {
            *slot = park(descriptor.as_raw_fd(), floor)?;
        }
        place_at(input, 0)?;
        place_at(output, 1)?;
        place_at(errors, 2)?;
        for (number, descriptor) in (FIRST_PASSED..).zip(&parked[..self.passed.len()]) {
            place_at(*descriptor, number)?;
        }
        Ok(())
    }
}

/// A step between fork and exec that failed, and its error number.
struct Failure {
    stage: u8,
    errno: i32,
}

fn failed_at(stage: u8) -> impl Fn(Errno) -> Failure {
    move |error| Failure { stage, errno: error as i32 }
}

/// Sends a failure over the error pipe and exits the child.
fn report_and_exit(failure: Failure, error_writer: RawFd) -> ! {
    let mut message = [0u8; 5];
    message[0] = failure.stage;
    message[1..].copy_from_slice(&failure.errno.to_ne_bytes());
    // SAFETY: plain system calls on a descriptor that is ours and a live buffer.
    unsafe {
        nix::libc::write(error_writer, message.as_ptr().cast(), message.len());
        nix::libc::_exit(127)
    }
}

/// Rust ignores SIGPIPE, and the process that started us may have blocked signals.
fn reset_signals() {
    // SAFETY: sets a disposition to the default; no handler of ours is involved.
    let _ =
        unsafe { nix::sys::signal::signal(nix::sys::signal::Signal::SIGPIPE, nix::sys::signal::SigHandler::SigDfl) };
    let _ = nix::sys::signal::sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
}

/// Marks all descriptors from `first` on close-on-exec, including those that we inherited unintentionally.
pub(crate) fn close_at_exec_from(first: RawFd) {
    // SAFETY: a system call on numbers; kernels before 5.11 do not support it, and then inherited descriptors stay
    // open.
    unsafe {
        nix::libc::syscall(nix::libc::SYS_close_range, first, nix::libc::c_uint::MAX, nix::libc::CLOSE_RANGE_CLOEXEC)
    };
}

/// Duplicates `descriptor` to a number of at least `floor`, with close-on-exec.
fn park(descriptor: RawFd, floor: RawFd) -> Result<RawFd, Errno> {
    // SAFETY: the descriptor is open in this process during the call.
    let borrowed = unsafe { BorrowedFd::borrow_raw(descriptor) };
    fcntl(borrowed, FcntlArg::F_DUPFD_CLOEXEC(floor))
}

/// Duplicates a parked descriptor to exactly `to`, kept across exec.
fn place_at(from: RawFd, to: RawFd) -> Result<(), Errno> {
    // SAFETY: `from` is open and, being parked, differs from `to`; `to` may be overwritten, because everything still
    // needed was parked before.
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

/// Takes the descriptors that the parent passed by systemd's protocol, with their names, sd_listen_fds(3). `names` is
/// `LISTEN_FDNAMES`. May be called only once, because it takes ownership.
pub fn take_passed(count: usize, names: &str) -> io::Result<Vec<(String, OwnedFd)>> {
    let mut descriptors = Vec::new();
    for (index, name) in (0..count).zip(names.split(':').chain(std::iter::repeat(""))) {
        let number = FIRST_PASSED + index as RawFd;
        // SAFETY: a number; if it is not open, the next call fails.
        let open = unsafe { BorrowedFd::borrow_raw(number) };
        fcntl(open, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        // SAFETY: the descriptor is open, and the protocol says that it is ours.
        let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
        descriptors.push((name.to_owned(), descriptor));
    }
    Ok(descriptors)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    fn shell(script: &str, environment: &[(&str, &str)], passed: Vec<BorrowedFd<'_>>) -> String {
        let (output, input) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
        let pid = Spawn {
            arguments: vec!["-c".into(), script.into()],
            environment: environment.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect(),
            passed,
            ..Spawn::new("/bin/sh", input.as_fd())
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
    fn passed_descriptors_start_at_three() {
        let (r1, w1) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
        let (r2, w2) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
        // A descriptor inherited unintentionally.
        let inherited = nix::unistd::dup(&w1).unwrap();
        fcntl(&inherited, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
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
        let error = Spawn::new("/nowhere/at all", null.as_fd()).start().unwrap_err();
        assert!(matches!(error, SpawnError::Exec { source, .. } if source.kind() == io::ErrorKind::NotFound));
    }
}
