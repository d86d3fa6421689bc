//! Assets, their events and partitions.

pub mod asset_lists;
pub mod assets;
pub mod partitions;
pub mod watchers;
