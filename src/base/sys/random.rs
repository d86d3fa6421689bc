//! Randomness from the kernel.

/// `N` random bytes.
///
/// # Panics
/// When the kernel cannot supply random bytes, because secrets would then be predictable.
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the kernel supplies random bytes");
    bytes
}

/// 256 random bits as 64 hexadecimal digits.
pub fn hex_256() -> String {
    hex::encode(bytes::<32>())
}
