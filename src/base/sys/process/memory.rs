//! Returns memory to the system.

/// Keeps large blocks out of the heap, so that they return to the system when freed. By default glibc raises the
/// threshold to the size of the first large block it frees, mallopt(3), and the 19 MiB that a login needs for hashing
/// would stay in the server's memory forever.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn return_large_blocks() {
    const LARGE_BYTES: nix::libc::c_int = 128 * 1024;
    // SAFETY: sets a number in the allocator; called before other threads start.
    unsafe {
        nix::libc::mallopt(nix::libc::M_MMAP_THRESHOLD, LARGE_BYTES);
    }
}

/// Shrinks an idle process: returns free memory to the system and unmaps pages of the program. Pages that are needed
/// again come back from the system's cache.
pub fn release_memory() {
    return_free_heap();
    #[cfg(target_os = "linux")]
    release_program_pages();
}

#[cfg(target_os = "linux")]
fn release_program_pages() {
    let Ok(program) = std::fs::read_link("/proc/self/exe") else { return };
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap_or_default();
    for (start, length) in unchanged_code(&smaps, &program.to_string_lossy()) {
        // SAFETY: the program stays mapped regardless of other threads, and unmodified pages are read from its file
        // again.
        unsafe {
            nix::libc::madvise(start as *mut nix::libc::c_void, length, nix::libc::MADV_DONTNEED);
        }
    }
}

/// Read-only mappings of the program without private pages, from /proc/PID/smaps of proc(5): start and length in bytes.
#[cfg(target_os = "linux")]
fn unchanged_code(smaps: &str, program: &str) -> Vec<(usize, usize)> {
    let mut mappings = Vec::new();
    let mut mapping = None;
    for line in smaps.lines() {
        let mut words = line.split_ascii_whitespace();
        let (first, second) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        if let Some((start, end)) = first.split_once('-') {
            let range = usize::from_str_radix(start, 16).ok().zip(usize::from_str_radix(end, 16).ok());
            let is_code = ["r-xp", "r--p"].contains(&second) && line.ends_with(&format!(" {program}"));
            mapping = range.filter(|_| is_code).map(|(start, end)| (start, end - start));
        } else if first == "Anonymous:" && second == "0" {
            mappings.extend(mapping.take());
        }
    }
    mappings
}

/// Returns free heap memory to the system.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn return_free_heap() {
    // SAFETY: walks the allocator's own lists, under its own locks.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}

/// Other allocators have no such threshold.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn return_large_blocks() {}

/// Other allocators do this automatically.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn return_free_heap() {}

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
    fn only_unmodified_program_pages_are_unmapped() {
        assert_eq!(unchanged_code(SMAPS, "/opt/leoflow"), [(0x40_0000, 0x10_0000)]);
        assert_eq!(unchanged_code(SMAPS, "/leoflow"), []);
        let own = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let program = std::fs::read_link("/proc/self/exe").unwrap();
        assert!(
            unchanged_code(&own, program.to_str().unwrap())
                .iter()
                .any(|(start, length)| (*start..start + length).contains(&(release_memory as *const () as usize)))
        );
    }

    #[test]
    fn a_process_works_after_shrinking() {
        let before: Vec<String> = (0..1000).map(|n| format!("{n}")).collect();
        release_memory();
        assert_eq!(before.iter().map(String::len).sum::<usize>(), 10 + 2 * 90 + 3 * 900);
        assert!(std::thread::spawn(|| fibonacci(20)).join().unwrap() > 0);
    }

    fn fibonacci(n: u64) -> u64 {
        if n < 2 { n } else { fibonacci(n - 1) + fibonacci(n - 2) }
    }
}
