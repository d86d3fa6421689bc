//! Named checkpoints at which a test may kill the process, so that a test can cover every step deterministically. Does
//! nothing in a release build without the feature.

/// Marks a step that was just made durable. With `LEOFLOW_KILL_AT=name` (debug builds, or the feature `checkpoints`)
/// the process is killed here as by SIGKILL; with `LEOFLOW_CHECKPOINT_LOG=file` the name is appended to that file, from
/// which tests get the list.
#[cfg(any(debug_assertions, feature = "checkpoints"))]
pub fn checkpoint(name: &str) {
    use super::env_vars;
    use std::io::Write;

    if let Some(log) = env_vars::path("LEOFLOW_CHECKPOINT_LOG")
        && let Ok(mut file) = std::fs::OpenOptions::new().append(true).create(true).open(log)
    {
        // The test that reads the log notices a failed write.
        let _ = writeln!(file, "{name}");
    }
    if env_vars::text("LEOFLOW_KILL_AT").as_deref() == Some(name) {
        super::process::kill_self();
    }
}

/// Fails with `LEOFLOW_FAIL_AT=name` (debug builds, or the feature `checkpoints`), for tests. Does nothing in a release
/// build without the feature.
pub fn may_fail(name: &str) -> std::io::Result<()> {
    #[cfg(any(debug_assertions, feature = "checkpoints"))]
    if super::env_vars::text("LEOFLOW_FAIL_AT").as_deref() == Some(name) {
        return Err(std::io::Error::other(format!("a test made {name} fail")));
    }
    let _ = name;
    Ok(())
}

/// Returns a time limit that a test may override, in seconds, by an environment variable of that name (debug builds, or
/// the feature `checkpoints`).
pub fn limit(name: &str, default: std::time::Duration) -> std::time::Duration {
    #[cfg(any(debug_assertions, feature = "checkpoints"))]
    if let Some(limit) = super::env_vars::text(name)
        .and_then(|text| text.parse().ok())
        .and_then(|seconds| std::time::Duration::try_from_secs_f64(seconds).ok())
    {
        return limit;
    }
    let _ = name;
    default
}

/// See the debug version.
#[cfg(not(any(debug_assertions, feature = "checkpoints")))]
#[inline(always)]
pub fn checkpoint(_name: &str) {}
