//! Backups: creates a file with all of the user's data, verifies it, restores it, and copies it to other places.

pub mod content;
pub mod copies;
pub mod create;
pub mod encryption;
pub mod format;
pub mod relocation;
pub mod restore;
pub mod retain;
pub mod verify;

pub use create::collect::CollectError;
pub(crate) use create::selection::files_size;
pub(crate) use create::survey::not_restored;
pub use create::{CreateError, CreatedBackup};
pub use encryption::{Input, Keys};
pub use format::manifest::Manifest;
pub use restore::changed_settings::changed_settings;
pub use restore::exchange_error::ExchangeError;
pub use restore::newer_files::newer_files;
pub use restore::restore_error::RestoreError;
pub use verify::staging::StagingError;
