//! Every statement that changes the state of a DAG run or a task instance. The callers decide what changes and notify
//! the listeners; these functions only write, and each documents the states that it changes and the locks that it
//! expects.
//!
//! Locking order: first the row of the run, then its instances. A transaction that plans, marks or clears a run locks
//! its row, so that no other transaction decides about the same instances. Claims, requeues and the start of queued
//! runs lock no run: a claim takes only instances that no other transaction has locked, and the scheduler checks that
//! an instance still has the state that it has read.

pub mod claim;
pub mod instance;
pub mod run;
