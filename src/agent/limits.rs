//! How long a keeper waits.

use std::time::Duration;

/// After the task's own deadline, for what it has to clean up.
pub fn timeout_grace() -> Duration {
    crate::sys::limit("LEOFLOW_TIMEOUT_GRACE", Duration::from_secs(5))
}

/// How often it looks whether its folder is still there.
pub fn folder_round() -> Duration {
    crate::sys::limit("LEOFLOW_FOLDER_ROUND", Duration::from_secs(10))
}

/// Between TERM and KILL.
pub fn term_grace() -> Duration {
    crate::sys::limit("LEOFLOW_TERM_GRACE", Duration::from_secs(5))
}
