//! Programs for Macs with Apple silicon. `scripts/macos` checks what they import, and their oldest system.

use super::Outcome;
use std::fs::File;
use std::io::Read;
use std::path::Path;

pub const TARGET: &str = "aarch64-apple-darwin";
/// The tag of wheels for macOS 11 and newer.
pub const WHEEL_TAG: &str = "macosx_11_0_arm64";
/// The first bytes: the magic number of 64-bit Mach-O, and the type of the processor, both little-endian.
const START: [u8; 8] = [0xcf, 0xfa, 0xed, 0xfe, 0x0c, 0, 0, 1];

/// True for a program for Macs with Apple silicon.
pub fn is_for_macs(program: &Path) -> Outcome<bool> {
    let mut start = Vec::new();
    let read = File::open(program).and_then(|file| file.take(START.len() as u64).read_to_end(&mut start));
    read.map_err(|error| format!("{}: {error}", program.display()))?;
    Ok(start == START)
}
