//! Intervals of the supervisor.

use std::time::Duration;

/// Poll interval for conditions that send no notification.
pub fn poll_interval() -> Duration {
    crate::sys::limit("LEOFLOW_ROUND", Duration::from_secs(10))
}
