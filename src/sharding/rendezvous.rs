//! Rendezvous hashing: each shard has a score for each key, and the shard with the highest score serves the key. So a
//! new shard takes the keys for which it has the highest score, and no key moves between the other shards.

/// The distance between two consecutive states of SplitMix64.
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// A strategy with which few keys move when the number of servers changes. From N servers to N + 1, about one key in
/// `N + 1` moves, always to the new server. With [`stable_hash_shard`](super::stable_hash_shard), `N` keys in `N + 1`
/// move.
///
/// A server is identified by its index in the list. So add servers at the end, and remove the last one. Another order,
/// or removing a server from the middle, moves the keys of every index that now has another server. To remove a server
/// from the middle, put the last one in its position, which moves only the keys of these two.
///
/// The result for a key is the same in every release and on every platform. Clients in other languages can compute it:
/// [`guide::sharding`](https://docs.rs/dflockd-client/latest/dflockd_client/guide/sharding/index.html) has the
/// definition, test vectors, and the steps by which a running fleet changes its list or strategy. Returns 0 if
/// `servers` is 0.
///
/// ```
/// use dflockd_client::{Client, rendezvous_hash_shard};
///
/// let builder = Client::builder().servers(["a:6388", "b:6388"]).sharding_strategy(rendezvous_hash_shard);
///
/// let (before, after) = (rendezvous_hash_shard("orders/42", 3), rendezvous_hash_shard("orders/42", 4));
/// assert!(after == before || after == 3);
/// ```
#[must_use]
pub fn rendezvous_hash_shard(key: &str, servers: usize) -> usize {
    let seed = u64::from(crc32fast::hash(key.as_bytes()));
    let mut best = (0, 0);
    let mut state = seed;
    for index in 0..servers {
        state = state.wrapping_add(GAMMA);
        let score = mix(state);
        // If scores are equal, the first shard wins.
        if index == 0 || score > best.1 {
            best = (index, score);
        }
    }
    best.0
}

/// Returns the output of SplitMix64 for a state.
fn mix(state: u64) -> u64 {
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The columns of the table in the document: numbers of servers.
    const SERVERS: [usize; 8] = [1, 2, 3, 4, 5, 8, 16, 64];

    /// Keys, the scores of shards 0 and 1, and the shard for each number of servers. Computed with Python from the
    /// definition.
    const VECTORS: &[(&str, [u64; 2], [usize; 8])] = &[
        (
            "",
            [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4],
            [0, 0, 0, 3, 3, 3, 3, 3],
        ),
        (
            "a",
            [0x2c3d_ebbc_7335_b4ee, 0xbe94_1184_9083_3412],
            [0, 1, 1, 1, 1, 7, 7, 29],
        ),
        (
            "my-key",
            [0x8d11_a15f_a536_f83d, 0x0502_a091_31d6_a520],
            [0, 0, 0, 3, 4, 4, 14, 26],
        ),
        (
            "orders/42",
            [0x3801_3aa7_03c3_1983, 0x2c0b_3fe5_6876_79ae],
            [0, 0, 2, 3, 3, 3, 3, 51],
        ),
        (
            "ключ",
            [0x868a_d818_e163_7076, 0xd0b3_e9b3_cf4b_82f1],
            [0, 1, 1, 3, 3, 3, 13, 50],
        ),
        (
            "鍵-7",
            [0xc190_3e36_426a_fc39, 0xfa29_85a5_b616_e8c8],
            [0, 1, 1, 1, 1, 1, 8, 8],
        ),
        (
            "clé",
            [0xd1fb_aec8_6757_c187, 0x55b0_c968_e5d4_b740],
            [0, 0, 0, 0, 4, 7, 7, 54],
        ),
        (
            "🔒",
            [0xc02a_5d8f_4df2_321b, 0x47dd_bfa4_991c_79b5],
            [0, 0, 0, 0, 0, 5, 15, 15],
        ),
        (
            "user:Ünïcödé:1",
            [0x00d2_b39e_d25a_ca60, 0x7d09_7b45_fe0a_c11f],
            [0, 1, 2, 2, 2, 2, 2, 2],
        ),
    ];

    #[test]
    fn agrees_with_the_vectors() {
        for (key, scores, shards) in VECTORS {
            let seed = u64::from(crc32fast::hash(key.as_bytes()));
            let score = |index: u64| mix(seed.wrapping_add((index + 1).wrapping_mul(GAMMA)));
            assert_eq!([score(0), score(1)], *scores, "{key}");
            assert_eq!(
                SERVERS.map(|servers| rendezvous_hash_shard(key, servers)),
                *shards,
                "{key}"
            );
        }
    }

    #[test]
    fn the_document_has_the_vectors() {
        let document = include_str!("../../docs/guide/src/sharding.md");
        for (key, [first, second], shards) in VECTORS {
            let shards: Vec<String> = shards.iter().map(ToString::to_string).collect();
            let crc = crc32fast::hash(key.as_bytes());
            let row = format!(
                "| `{key:?}` | {crc} | `{first:016x}` | `{second:016x}` | {} |",
                shards.join(" | ")
            );
            assert!(
                document.contains(&row),
                "docs/guide/src/sharding.md lacks the row\n{row}"
            );
        }
    }

    #[test]
    fn zero_servers_do_not_panic() {
        assert_eq!(rendezvous_hash_shard("k", 0), 0);
    }

    proptest! {
        /// Checks that keys move only to a new server.
        #[test]
        fn keys_move_to_the_new_server_only(key in ".{0,40}", servers in 1_usize..40) {
            let (before, after) = (rendezvous_hash_shard(&key, servers), rendezvous_hash_shard(&key, servers + 1));
            prop_assert!(before < servers);
            prop_assert!(after == before || after == servers);
        }

        /// Checks that numbered keys are distributed evenly, and that a new server gets its share, within five
        /// standard deviations.
        #[test]
        fn keys_are_spread_evenly(prefix in "[a-z/:._-]{0,12}", suffix in "[a-z/:._-]{0,6}", servers in 1_usize..20) {
            const KEYS: u32 = 20_000;
            let mut counts = vec![0_u32; servers + 1];
            for number in 0..KEYS {
                counts[rendezvous_hash_shard(&format!("{prefix}{number}{suffix}"), servers + 1)] += 1;
            }
            let share = f64::from(KEYS) / (servers + 1) as f64;
            let deviation = (share * servers as f64 / (servers + 1) as f64).sqrt();
            for count in counts {
                prop_assert!((f64::from(count) - share).abs() < 5.0 * deviation, "{count} of {share}");
            }
        }
    }
}
