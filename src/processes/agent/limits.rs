//! Time limits of a keeper.

use std::time::Duration;

/// Time that a task has to clean up after its execution_timeout, before its keeper ends it.
pub fn timeout_grace() -> Duration {
    leoflow_base::sys::limit("LEOFLOW_TIMEOUT_GRACE", Duration::from_secs(5))
}

/// How often a keeper checks that its folder still exists.
pub fn folder_check_interval() -> Duration {
    leoflow_base::sys::limit("LEOFLOW_FOLDER_ROUND", Duration::from_secs(10))
}

/// Time between TERM and KILL.
pub fn term_grace() -> Duration {
    leoflow_base::sys::limit("LEOFLOW_TERM_GRACE", Duration::from_secs(5))
}
