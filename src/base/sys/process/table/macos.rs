//! libproc and sysctl(3).

use super::procargs::arguments_and_environment;
use super::{Entry, State};
use nix::libc;
use std::ffi::{CStr, OsStr};
use std::mem::MaybeUninit;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Clock ticks per second, sysconf(3).
const TICKS_PER_SECOND: u64 = 100;

pub(super) fn entry(pid: i32) -> Option<Entry> {
    let process: libc::proc_bsdinfo = information(pid, libc::PROC_PIDTBSDINFO)?;
    let state = match process.pbi_status {
        libc::SZOMB => State::Zombie,
        libc::SSTOP => State::Stopped,
        _ => State::Alive,
    };
    Some(Entry {
        state,
        parent: i32::try_from(process.pbi_ppid).ok()?,
        session: nix::unistd::getsid(Some(nix::unistd::Pid::from_raw(pid))).map_or(0, nix::unistd::Pid::as_raw),
        processor_ticks: processor_ticks(pid),
        start: process.pbi_start_tvsec * 1_000_000 + process.pbi_start_tvusec,
    })
}

/// A structure that proc_pidinfo fills; `None` if the process does not exist or belongs to another user.
fn information<T>(pid: i32, flavor: libc::c_int) -> Option<T> {
    // With this argument it answers for zombies too, where it has an answer.
    const ZOMBIES: u64 = 1;
    let mut filled = MaybeUninit::<T>::zeroed();
    let size = libc::c_int::try_from(size_of::<T>()).ok()?;
    // SAFETY: the buffer has the given size, and the structures of libproc are plain numbers and bytes.
    unsafe {
        let written = libc::proc_pidinfo(pid, flavor, ZOMBIES, filled.as_mut_ptr().cast(), size);
        (written == size).then(|| filled.assume_init())
    }
}

/// The time of the process without its children, which is counted in units of mach_timebase_info(3).
#[expect(deprecated, reason = "its successor is a crate for the whole of Mach")]
fn processor_ticks(pid: i32) -> u64 {
    let Some(task) = information::<libc::proc_taskinfo>(pid, libc::PROC_PIDTASKINFO) else { return 0 };
    let mut unit = libc::mach_timebase_info { numer: 0, denom: 0 };
    // SAFETY: fills a structure of ours.
    unsafe {
        libc::mach_timebase_info(&mut unit);
    }
    let time = u128::from(task.pti_total_user) + u128::from(task.pti_total_system);
    let nanoseconds = time * u128::from(unit.numer) / u128::from(unit.denom.max(1));
    u64::try_from(nanoseconds * u128::from(TICKS_PER_SECOND) / 1_000_000_000).unwrap_or(u64::MAX)
}

/// True when the process is a zombie or gone.
pub fn has_begun_to_exit(pid: i32) -> bool {
    entry(pid).is_none_or(|entry| entry.is_zombie())
}

/// The kernel's id of the current boot, which is read once.
pub fn boot_id() -> &'static str {
    static BOOT_ID: OnceLock<String> = OnceLock::new();
    BOOT_ID.get_or_init(|| {
        let mut text = [0_u8; 64];
        let mut length = text.len();
        // SAFETY: the name is a C string, and the buffer has the given length.
        let result = unsafe {
            let name = c"kern.bootsessionuuid".as_ptr();
            libc::sysctlbyname(name, text.as_mut_ptr().cast(), &mut length, std::ptr::null_mut(), 0)
        };
        let known = CStr::from_bytes_until_nul(&text).ok().filter(|_| result == 0);
        known.map(|text| text.to_string_lossy().into_owned()).unwrap_or_default()
    })
}

/// The path of a process's program as shown by the kernel.
pub fn program(pid: i32) -> Option<PathBuf> {
    let mut path = vec![0_u8; libc::PROC_PIDPATHINFO_MAXSIZE as usize];
    // SAFETY: the buffer has the given size.
    let length = unsafe { libc::proc_pidpath(pid, path.as_mut_ptr().cast(), u32::try_from(path.len()).ok()?) };
    path.truncate(usize::try_from(length).ok().filter(|length| *length > 0)?);
    Some(PathBuf::from(std::ffi::OsString::from_vec(path)))
}

/// What the kernel keeps of a process's start: [`super::procargs`].
fn started_with(pid: i32) -> Option<Vec<u8>> {
    let mut name = [libc::CTL_KERN, libc::KERN_PROCARGS2, pid];
    let mut bytes = vec![0_u8; usize::try_from(argument_limit()).ok()?];
    let mut length = bytes.len();
    // SAFETY: the name has three parts, and the buffer has the given length.
    let result = unsafe {
        let buffer = bytes.as_mut_ptr().cast();
        libc::sysctl(name.as_mut_ptr(), 3, buffer, &mut length, std::ptr::null_mut(), 0)
    };
    bytes.truncate(length);
    (result == 0).then_some(bytes)
}

fn argument_limit() -> i64 {
    nix::unistd::sysconf(nix::unistd::SysconfVar::ARG_MAX).ok().flatten().unwrap_or(1024 * 1024)
}

/// The arguments of a process, from the name of its program on. `None` when the process does not exist.
pub fn arguments(pid: i32) -> Option<Vec<String>> {
    let bytes = started_with(pid)?;
    let (mut arguments, _) = arguments_and_environment(&bytes)?;
    // A process that writes a title over its arguments leaves zeros after it.
    while arguments.last().is_some_and(|word| word.is_empty()) {
        arguments.pop();
    }
    Some(arguments.into_iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect())
}

/// The working directory of a process, as far as we may inspect it.
pub fn working_folder(pid: i32) -> Option<PathBuf> {
    let folders: libc::proc_vnodepathinfo = information(pid, libc::PROC_PIDVNODEPATHINFO)?;
    let path: Vec<u8> = folders.pvi_cdir.vip_path.as_flattened().iter().map(|byte| *byte as u8).collect();
    let path = CStr::from_bytes_until_nul(&path).ok()?;
    Some(Path::new(OsStr::from_bytes(path.to_bytes())).to_owned())
}

/// The environment that a process was started with, as `NAME=value` with a NUL after each. `None` when it may not be
/// read, or the process has exited.
pub fn environment(pid: i32) -> Option<Vec<u8>> {
    let bytes = started_with(pid)?;
    let (_, variables) = arguments_and_environment(&bytes)?;
    Some(variables.join(&0))
}

/// The children of a process, including zombies.
pub fn children(pid: i32) -> Option<Vec<i32>> {
    Some(all_pids().filter(|child| entry(*child).is_some_and(|entry| entry.parent == pid)).collect())
}

/// The pids of all processes.
pub fn all_pids() -> impl Iterator<Item = i32> {
    // Processes that start meanwhile find room.
    const MORE: usize = 64;
    // SAFETY: without a buffer it returns the number of processes.
    let count = unsafe { libc::proc_listallpids(std::ptr::null_mut(), 0) };
    let mut pids = vec![0_i32; usize::try_from(count).unwrap_or(0) + MORE];
    let size = libc::c_int::try_from(size_of_val(pids.as_slice())).unwrap_or(0);
    // SAFETY: the buffer has the given size.
    let count = unsafe { libc::proc_listallpids(pids.as_mut_ptr().cast(), size) };
    pids.truncate(usize::try_from(count).unwrap_or(0));
    pids.into_iter()
}

/// The resident set size of a process in bytes, with shared pages counted fully.
pub fn resident_bytes(pid: i32) -> Option<u64> {
    information::<libc::proc_taskinfo>(pid, libc::PROC_PIDTASKINFO).map(|task| task.pti_resident_size)
}
