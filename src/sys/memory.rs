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

/// Gives what is free back to the system. Takes a moment: for a process that has nothing else to do.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn return_what_is_free() {
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
pub fn return_what_is_free() {}
