//! Releases: hosts, manifests and signatures, and the programs in `versions/`.

pub(crate) mod address;
pub mod freshness;
pub mod manifest;
pub mod program;
pub(crate) mod range;
pub mod signature;
pub mod source;
pub mod stage;
pub mod version_order;
pub mod versions;
