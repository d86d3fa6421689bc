//! Which half of this folder is in use: the calls that only Linux has, or those that macOS has too.

/// True on macOS. On Linux with `LEOFLOW_PORTABLE=1` (debug builds, or the feature `checkpoints`), so that tests cover
/// the portable half.
#[cfg(all(target_os = "linux", any(debug_assertions, feature = "checkpoints")))]
pub fn is_portable() -> bool {
    static IS_PORTABLE: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *IS_PORTABLE.get_or_init(|| super::env_vars::text("LEOFLOW_PORTABLE").as_deref() == Some("1"))
}

/// See the debug version.
#[cfg(not(all(target_os = "linux", any(debug_assertions, feature = "checkpoints"))))]
#[inline(always)]
pub fn is_portable() -> bool {
    cfg!(not(target_os = "linux"))
}
