//! The signals that stop an instance.

use super::event::Event;
use leoflow_base::sys::process;
use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Receives the signals that request a stop.
pub struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
    /// `None` under `nohup`, where SIGHUP is ignored.
    hangup: Option<Signal>,
}

impl StopSignals {
    pub fn new() -> io::Result<Self> {
        let hangup = if process::hangup_is_ignored() { None } else { Some(signal(SignalKind::hangup())?) };
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())?, hangup })
    }

    /// Waits for the next signal and returns its number.
    pub async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt().as_raw_value(),
            _ = self.terminate.recv() => SignalKind::terminate().as_raw_value(),
            _ = async { match &mut self.hangup { Some(hangup) => hangup.recv().await, None => std::future::pending().await } } =>
                SignalKind::hangup().as_raw_value(),
        }
    }
}

/// Detects an immediate stop: a second Ctrl-C. A closing terminal may send HUP more than once, which does not count.
#[derive(Default)]
pub struct Interrupts {
    was_interrupted: bool,
    /// The signal that requested the immediate stop.
    pub immediate_stop: Option<i32>,
}

impl Interrupts {
    /// Returns the event for a stop signal, and true when it is repeated.
    pub fn stop_event(&mut self, stop: i32) -> (Event, bool) {
        let is_interrupt = stop == SignalKind::interrupt().as_raw_value();
        let is_repeated = is_interrupt && std::mem::replace(&mut self.was_interrupted, is_interrupt);
        if is_repeated {
            self.immediate_stop = Some(stop);
        }
        (if is_repeated { Event::StopNow } else { Event::Stop }, is_repeated)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_second_interrupt_stops_immediately() {
        let [interrupt, terminate, hangup] =
            [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(|kind| kind.as_raw_value());
        let mut interrupts = Interrupts::default();
        for stop in [hangup, hangup, terminate, terminate, interrupt, hangup] {
            assert!(matches!(interrupts.stop_event(stop), (Event::Stop, false)), "{stop}");
        }
        assert_eq!(interrupts.immediate_stop, None);
        assert!(matches!(interrupts.stop_event(interrupt), (Event::StopNow, true)));
        assert_eq!(interrupts.immediate_stop, Some(interrupt));
    }
}
