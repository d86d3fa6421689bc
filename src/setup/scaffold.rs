//! A new workspace. An existing one is the user's and is not touched.

use std::io;
use std::path::Path;

/// Makes the folder. What it will hold first comes with the engine.
pub fn make(workspace: &Path) -> io::Result<()> {
    std::fs::create_dir_all(workspace)
}
