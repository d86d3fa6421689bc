//! How many children with users' code run at once: carries out what `slot_policy` decides.

use super::slot_policy::{Id, Pace, SlotPolicy, Step};
use crate::sys::{free_memory, processor};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How often it is asked what a child has used.
const TICK: Duration = Duration::from_millis(500);

pub struct ChildSlots {
    policy: RefCell<SlotPolicy>,
    /// Notified when they begin or give way.
    notifies: RefCell<HashMap<Id, Rc<Notify>>>,
    start: Instant,
}

/// What came of one.
pub struct Ran<T> {
    pub result: T,
    /// What it has turned out to be.
    pub pace: Pace,
}

impl ChildSlots {
    pub fn new() -> Rc<Self> {
        let policy = RefCell::new(SlotPolicy::new(processor::count()));
        Rc::new(Self { policy, notifies: RefCell::default(), start: Instant::now() })
    }

    /// Does the work when it has a slot. A parse that gives way is dropped, and begins anew when it has a slot again. The
    /// work says in its cell how much processor time it has used.
    pub async fn run<T, F: Future<Output = T>>(
        &self,
        mut pace: Pace,
        work: impl Fn(Rc<Cell<Duration>>) -> F,
    ) -> Ran<T> {
        loop {
            let place = Place::new(self, pace);
            place.notify.notified().await;
            let used = Rc::new(Cell::new(Duration::ZERO));
            // Dropped before its place is.
            let mut work = std::pin::pin!(work(used.clone()));
            while !self.policy.borrow().is_ending(place.id) {
                tokio::select! {
                    result = work.as_mut() => {
                        return Ran { result, pace: place.measure(used.get()) };
                    }
                    () = place.notify.notified() => {}
                    () = tokio::time::sleep(TICK) => {
                        place.measure(used.get());
                        self.decide();
                    }
                }
            }
            pace = Pace::Slow;
        }
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn decide(&self) {
        loop {
            let step = self.policy.borrow_mut().next(self.now(), free_memory::bytes);
            let Some(Step::Begin(id) | Step::End(id)) = step else { return };
            if let Some(notify) = self.notifies.borrow().get(&id) {
                notify.notify_one();
            }
        }
    }
}

/// From its arrival until it is dropped.
struct Place<'a> {
    slots: &'a ChildSlots,
    id: Id,
    notify: Rc<Notify>,
}

impl<'a> Place<'a> {
    fn new(slots: &'a ChildSlots, pace: Pace) -> Self {
        let id = slots.policy.borrow_mut().arrive(pace, slots.now());
        let notify = Rc::new(Notify::new());
        slots.notifies.borrow_mut().insert(id, notify.clone());
        slots.decide();
        Self { slots, id, notify }
    }

    /// Notes what it has used; what it has turned out to be by now.
    fn measure(&self, used: Duration) -> Pace {
        let (mut policy, now) = (self.slots.policy.borrow_mut(), self.slots.now());
        policy.measure(self.id, now, used);
        if policy.is_slow(self.id, now) { Pace::Slow } else { Pace::Quick }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.slots.notifies.borrow_mut().remove(&self.id);
        self.slots.policy.borrow_mut().leave(self.id);
        self.slots.decide();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slow_parse_gives_way_and_begins_again() {
        let policy = RefCell::new(SlotPolicy::new(2));
        let slots = ChildSlots { policy, notifies: RefCell::default(), start: Instant::now() };
        let (begun, quick_is_done) = (Cell::new(0), tokio::sync::watch::Sender::new(false));
        let slow = |used: Rc<Cell<Duration>>| {
            begun.set(begun.get() + 1);
            used.set(Duration::from_secs(60));
            let mut done = quick_is_done.subscribe();
            async move { done.wait_for(|done| *done).await.is_ok() }
        };
        let quick = async {
            let ran = slots.run(Pace::Quick, |_| async {}).await;
            quick_is_done.send_replace(true);
            ran
        };
        let (one, other, quick) = tokio::join!(slots.run(Pace::Slow, slow), slots.run(Pace::Quick, slow), quick);
        assert_eq!((one.pace, other.pace, quick.pace), (Pace::Slow, Pace::Slow, Pace::Quick));
        assert_eq!(begun.get(), 3, "one of the two has begun again");
    }

    #[tokio::test]
    async fn a_parse_that_is_given_up_leaves_its_slot() {
        let slots = ChildSlots::new();
        for _ in 0..20 {
            let never = slots.run(Pace::Slow, |_| std::future::pending::<()>());
            let _ = tokio::time::timeout(Duration::from_millis(1), never).await;
        }
        slots.run(Pace::Slow, |_| async {}).await;
        assert!(slots.notifies.borrow().is_empty());
    }
}
