//! The signals that end an instance.

use super::event::Event;
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

/// A terminal that closes sends HUP more than once; impatience is Ctrl-C, twice.
#[derive(Default)]
pub struct Patience {
    was_interrupted: bool,
    /// The signal that ended it.
    pub ended_by: Option<i32>,
}

impl Patience {
    /// What a signal to stop means, and whether it is a repeated one.
    pub fn told(&mut self, stop: i32) -> (Event, bool) {
        let is_interrupt = stop == SignalKind::interrupt().as_raw_value();
        let again = is_interrupt && std::mem::replace(&mut self.was_interrupted, is_interrupt);
        if again {
            self.ended_by = Some(stop);
        }
        (if again { Event::StopNow } else { Event::Stop }, again)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_second_interrupt_is_impatience() {
        let [interrupt, terminate, hangup] =
            [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(|kind| kind.as_raw_value());
        let mut patience = Patience::default();
        for stop in [hangup, hangup, terminate, terminate, interrupt, hangup] {
            assert!(matches!(patience.told(stop), (Event::Stop, false)), "{stop}");
        }
        assert_eq!(patience.ended_by, None);
        assert!(matches!(patience.told(interrupt), (Event::StopNow, true)));
        assert_eq!(patience.ended_by, Some(interrupt));
    }
}
