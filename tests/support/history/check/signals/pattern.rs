//! The matching of patterns and channels.

/// Returns whether a pattern matches. Tokens are separated by dots; `*` stands for one token, `>` at the end for one or more.
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
