//! Intervals of the supervisor.

use std::time::Duration;

/// Poll interval for conditions that send no notification.
pub fn poll_interval() -> Duration {
    leoflow_base::sys::limit("LEOFLOW_ROUND", Duration::from_secs(10))
}
