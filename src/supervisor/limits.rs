//! How often a supervisor looks.

use std::time::Duration;

/// How often what cannot notify is looked at.
pub fn round_pause() -> Duration {
    crate::sys::limit("LEOFLOW_ROUND", Duration::from_secs(10))
}
