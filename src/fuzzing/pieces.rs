//! Splits bytes into pieces, as a network does.

/// Splits bytes into pieces whose lengths follow from `seed`: from one byte up to a few thousand bytes each.
pub(crate) fn pieces(bytes: &[u8], seed: u8) -> impl Iterator<Item = &[u8]> {
    let mut random = fastrand::Rng::with_seed(u64::from(seed));
    let longest = [1, 3, 40, 5_000][usize::from(seed % 4)].max(bytes.len() / 4_000);
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (piece, behind) = rest.split_at(random.usize(1..=longest).min(rest.len()));
        rest = behind;
        Some(piece)
    })
}
