//! Runs child processes with users' code. A child starts when it gets a slot; `slot_policy` decides which child gets
//! one.

use super::slot_policy::{Id, Pace, Priority, SlotPolicy, Step};
use leoflow_base::sys::process::{free_memory, processor};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Interval for measuring a child's processor time.
const TICK: Duration = Duration::from_millis(500);

pub struct ChildSlots {
    policy: RefCell<SlotPolicy>,
    /// One per child: notified when the child may start or must be aborted.
    notifies: RefCell<HashMap<Id, Rc<Notify>>>,
    /// The times passed to the policy are durations since this instant.
    start: Instant,
}

impl ChildSlots {
    pub fn new() -> Rc<Self> {
        let policy = RefCell::new(SlotPolicy::new(processor::count()));
        Rc::new(Self { policy, notifies: RefCell::default(), start: Instant::now() })
    }

    /// Waits for a slot, then calls `new_work` and runs its future. Returns its result and the measured pace. If the policy aborts the child, the future is
    /// dropped and `new_work` is called again with the next slot. The future stores the processor time that it used in
    /// the cell.
    pub async fn run<T, F: Future<Output = T>>(
        &self,
        mut priority: Priority,
        new_work: impl Fn(Rc<Cell<Duration>>) -> F,
    ) -> (T, Pace) {
        loop {
            let registration = Registration::new(self, priority);
            registration.notify.notified().await;
            let used = Rc::new(Cell::new(Duration::ZERO));
            // Declared after `registration`, so that the child is stopped before its slot is freed.
            let mut work = std::pin::pin!(new_work(used.clone()));
            while !self.policy.borrow().is_aborting(registration.id) {
                tokio::select! {
                    result = work.as_mut() => {
                        return (result, registration.measure(used.get()));
                    }
                    () = registration.notify.notified() => {}
                    () = tokio::time::sleep(TICK) => {
                        registration.measure(used.get());
                        self.apply_policy();
                    }
                }
            }
            priority.pace = Pace::Slow;
        }
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Takes the policy's next steps and notifies the children concerned.
    fn apply_policy(&self) {
        loop {
            let step = self.policy.borrow_mut().next(self.now(), free_memory::bytes);
            let Some(Step::Start(id) | Step::Abort(id)) = step else { return };
            if let Some(notify) = self.notifies.borrow().get(&id) {
                notify.notify_one();
            }
        }
    }
}

/// A child's registration with the policy, until dropped.
struct Registration<'a> {
    slots: &'a ChildSlots,
    id: Id,
    notify: Rc<Notify>,
}

impl<'a> Registration<'a> {
    fn new(slots: &'a ChildSlots, priority: Priority) -> Self {
        let id = slots.policy.borrow_mut().add(priority, slots.now());
        let notify = Rc::new(Notify::new());
        slots.notifies.borrow_mut().insert(id, notify.clone());
        slots.apply_policy();
        Self { slots, id, notify }
    }

    /// Records the processor time used; returns the child's pace so far.
    fn measure(&self, used: Duration) -> Pace {
        let (mut policy, now) = (self.slots.policy.borrow_mut(), self.slots.now());
        policy.measure(self.id, now, used);
        if policy.is_slow(self.id, now) { Pace::Slow } else { Pace::Quick }
    }
}

impl Drop for Registration<'_> {
    fn drop(&mut self) {
        self.slots.notifies.borrow_mut().remove(&self.id);
        self.slots.policy.borrow_mut().remove(self.id);
        self.slots.apply_policy();
    }
}

#[cfg(test)]
mod tests {
    use super::super::slot_policy::Recency;
    use super::*;

    const QUICK: Priority = Priority { pace: Pace::Quick, recency: Recency { scan: 1, modified: (0, 0) } };
    const SLOW: Priority = Priority { pace: Pace::Slow, ..QUICK };

    #[tokio::test]
    async fn a_slow_parse_yields_and_restarts() {
        let policy = RefCell::new(SlotPolicy::new(2));
        let slots = ChildSlots { policy, notifies: RefCell::default(), start: Instant::now() };
        let (start_count, quick_is_done) = (Cell::new(0), tokio::sync::watch::Sender::new(false));
        let slow = |used: Rc<Cell<Duration>>| {
            start_count.set(start_count.get() + 1);
            used.set(Duration::from_secs(60));
            let mut done = quick_is_done.subscribe();
            async move { done.wait_for(|done| *done).await.is_ok() }
        };
        let quick = async {
            let result = slots.run(QUICK, |_| async {}).await;
            quick_is_done.send_replace(true);
            result
        };
        let ((_, first_slow), (_, second_slow), (_, quick)) =
            tokio::join!(slots.run(SLOW, slow), slots.run(QUICK, slow), quick);
        assert_eq!((first_slow, second_slow, quick), (Pace::Slow, Pace::Slow, Pace::Quick));
        assert_eq!(start_count.get(), 3, "one of the two was restarted");
    }

    #[tokio::test]
    async fn a_dropped_parse_frees_its_slot() {
        let slots = ChildSlots::new();
        for _ in 0..20 {
            let never = slots.run(SLOW, |_| std::future::pending::<()>());
            let _ = tokio::time::timeout(Duration::from_millis(1), never).await;
        }
        slots.run(SLOW, |_| async {}).await;
        assert!(slots.notifies.borrow().is_empty());
    }
}
