//! Randomness from the kernel.

/// `N` random bytes.
///
/// # Panics
/// When the kernel has no randomness to give, in which case no secret of ours would be one.
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the kernel gives random bytes");
    bytes
}

/// 256 random bits as 64 hexadecimal digits.
pub fn hex_256() -> String {
    hex::encode(bytes::<32>())
}
