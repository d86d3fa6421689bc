//! Copying everything the user has into one file, proving it, and bringing it back.

pub mod archive;
pub mod archive_read;
pub mod automatic;
pub mod catalog;
mod collect;
pub mod create;
pub mod dump;
pub mod encryption;
pub mod exchange;
mod exchange_error;
mod exchange_workspace;
mod fitness;
pub mod left_out;
pub mod load;
pub mod manifest;
pub mod restore;
pub mod restore_plan;
pub mod retention;
mod scratch;
pub mod set_aside;
pub mod side;
mod spool;
mod stage;
mod survey;
pub mod verify;

pub use collect::CollectError;
pub use create::{CreateError, Made, Request, create};
pub use encryption::{Input, Keys};
pub use exchange_error::ExchangeError;
pub use manifest::Manifest;
pub use restore::RestoreError;
