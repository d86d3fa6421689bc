//! The signals that end an instance.

use crate::sys::process;
use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that mean "leave".
pub struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
    /// `None` under `nohup`, which asks to be left alone.
    hangup: Option<Signal>,
}

impl StopSignals {
    pub fn new() -> io::Result<Self> {
        let hangup = if process::hangup_is_ignored() { None } else { Some(signal(SignalKind::hangup())?) };
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())?, hangup })
    }

    /// The number of the next one.
    pub async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt().as_raw_value(),
            _ = self.terminate.recv() => SignalKind::terminate().as_raw_value(),
            _ = async { match &mut self.hangup { Some(hangup) => hangup.recv().await, None => std::future::pending().await } } =>
                SignalKind::hangup().as_raw_value(),
        }
    }
}
