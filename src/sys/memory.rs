//! Giving memory back.

/// Keeps large blocks out of the heap, so that they go back to the system when they are freed. By
/// default glibc raises the limit to the size of the first large block it frees, mallopt(3), and a
/// single login, which takes 19 MiB for hashing, would stay in the server's memory for ever.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn return_large_blocks() {
    const LARGE_BYTES: nix::libc::c_int = 128 * 1024;
    // SAFETY: sets a number in the allocator; called before there is a second thread.
    unsafe {
        nix::libc::mallopt(nix::libc::M_MMAP_THRESHOLD, LARGE_BYTES);
    }
}

/// For a process that has nothing to do: gives free memory back to the system, and lets go of the pages of its program
/// that it has needed to start or for work that is done. Those that it needs again are still in the system's cache, and
/// come back as they are used.
pub fn rest() {
    return_what_is_free();
    #[cfg(target_os = "linux")]
    rest_program();
}

#[cfg(target_os = "linux")]
fn rest_program() {
    let Ok(program) = std::fs::read_link("/proc/self/exe") else { return };
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap_or_default();
    for (start, length) in unchanged_code(&smaps, &program.to_string_lossy()) {
        // SAFETY: a program stays where it is mapped, whatever other threads do, and pages that only its file has ever
        // been the source of are read from it again, as they were.
        unsafe {
            nix::libc::madvise(start as *mut nix::libc::c_void, length, nix::libc::MADV_DONTNEED);
        }
    }
}

/// Mappings of the program that cannot be written to and of which nothing is ours alone, by /proc/PID/smaps of proc(5):
/// start and length in bytes.
#[cfg(target_os = "linux")]
fn unchanged_code(smaps: &str, program: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut mapping = None;
    for line in smaps.lines() {
        let mut words = line.split_ascii_whitespace();
        let (first, second) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        if let Some((start, end)) = first.split_once('-') {
            let ends = usize::from_str_radix(start, 16).ok().zip(usize::from_str_radix(end, 16).ok());
            let is_code = ["r-xp", "r--p"].contains(&second) && line.ends_with(&format!(" {program}"));
            mapping = ends.filter(|_| is_code).map(|(start, end)| (start, end - start));
        } else if first == "Anonymous:" && second == "0" {
            found.extend(mapping.take());
        }
    }
    found
}

/// Gives what is free back to the system.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn return_what_is_free() {
    // SAFETY: walks the allocator's own lists, under its own locks.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}

/// Other allocators have no such limit.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn return_large_blocks() {}

/// Other allocators do so by themselves.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn return_what_is_free() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    const SMAPS: &str = "\
00400000-00500000 r-xp 00000000 08:01 42   /opt/leoflow
Rss:                 900 kB
Anonymous:             0 kB
00500000-00510000 r--p 00100000 08:01 42   /opt/leoflow
Anonymous:            16 kB
00510000-00520000 rw-p 00110000 08:01 42   /opt/leoflow
Anonymous:             0 kB
7ffff000-7ffff800 r-xp 00000000 00:00 0    [vdso]
Anonymous:             0 kB
00600000-00700000 r--p 00000000 00:00 0
Anonymous:             0 kB
";

    #[test]
    #[cfg(target_os = "linux")]
    fn only_what_a_file_gives_again_is_let_go() {
        assert_eq!(unchanged_code(SMAPS, "/opt/leoflow"), [(0x40_0000, 0x10_0000)]);
        assert_eq!(unchanged_code(SMAPS, "/leoflow"), []);
        let own = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let program = std::fs::read_link("/proc/self/exe").unwrap();
        assert!(
            unchanged_code(&own, program.to_str().unwrap())
                .iter()
                .any(|(start, length)| (*start..start + length).contains(&(rest as *const () as usize)))
        );
    }

    #[test]
    fn a_process_that_has_rested_goes_on() {
        let before: Vec<String> = (0..1000).map(|n| format!("{n}")).collect();
        rest();
        assert_eq!(before.iter().map(String::len).sum::<usize>(), 10 + 2 * 90 + 3 * 900);
        assert!(std::thread::spawn(|| fibonacci(20)).join().unwrap() > 0);
    }

    fn fibonacci(n: u64) -> u64 {
        if n < 2 { n } else { fibonacci(n - 1) + fibonacci(n - 2) }
    }
}
