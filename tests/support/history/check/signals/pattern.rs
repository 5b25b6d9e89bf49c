//! Compares patterns with channels.

/// Returns whether a pattern matches a channel. Dots separate tokens. `*` stands for one token. `>` at the end stands
/// for one or more tokens.
pub fn matches(pattern: &str, channel: &str) -> bool {
    let (mut patterns, mut tokens) = (pattern.split('.'), channel.split('.'));
    loop {
        match (patterns.next(), tokens.next()) {
            (None, None) => return true,
            (Some(">"), Some(_)) => return true,
            (Some(wanted), Some(token)) if wanted == "*" || wanted == token => {}
            _ => return false,
        }
    }
}
