//! Assets and their events.

pub mod asset_events;
pub mod asset_expressions;
pub mod assets;
pub mod queued_events;
