//! Named moments at which a test may kill the process, so that "killed at every step" is a loop
//! and not a matter of luck. In a release build without the feature this is nothing.

/// Marks a step that has just been made durable. With `LEOFLOW_KILL_AT=name` in the environment
/// (debug builds, or the feature `checkpoints`) the process ends here as by SIGKILL; with
/// `LEOFLOW_CHECKPOINT_LOG=file` the name is appended to that file, which is how tests list them.
#[cfg(any(debug_assertions, feature = "checkpoints"))]
pub fn checkpoint(name: &str) {
    use super::env_vars;
    use std::io::Write;

    if let Some(log) = env_vars::path("LEOFLOW_CHECKPOINT_LOG")
        && let Ok(mut file) = std::fs::OpenOptions::new().append(true).create(true).open(log)
    {
        // A test's own log: if it cannot be written, the test that reads it says so.
        let _ = writeln!(file, "{name}");
    }
    if env_vars::text("LEOFLOW_KILL_AT").as_deref() == Some(name) {
        super::process::kill_self();
    }
}

/// A step that a test may make fail: with `LEOFLOW_FAIL_AT=name` (debug builds, or the feature
/// `checkpoints`) it does. In a release build without the feature this is nothing.
pub fn may_fail(name: &str) -> std::io::Result<()> {
    #[cfg(any(debug_assertions, feature = "checkpoints"))]
    if super::env_vars::text("LEOFLOW_FAIL_AT").as_deref() == Some(name) {
        return Err(std::io::Error::other(format!("a test made {name} fail")));
    }
    let _ = name;
    Ok(())
}

/// A time limit that a test may set, in seconds, by an environment variable of that name (debug builds, or the feature
/// `checkpoints`).
pub fn limit(name: &str, usual: std::time::Duration) -> std::time::Duration {
    #[cfg(any(debug_assertions, feature = "checkpoints"))]
    if let Some(limit) = super::env_vars::text(name)
        .and_then(|text| text.parse().ok())
        .and_then(|seconds| std::time::Duration::try_from_secs_f64(seconds).ok())
    {
        return limit;
    }
    let _ = name;
    usual
}

/// See the debug version.
#[cfg(not(any(debug_assertions, feature = "checkpoints")))]
#[inline(always)]
pub fn checkpoint(_name: &str) {}
