//! The values of the wire protocol. Each type checks its value when it is created, so later code can trust it.

mod fence;
mod grant;
mod key;
mod limit;
mod seconds;
mod target;
mod token;

pub use fence::Fence;
pub use grant::Grant;
pub(crate) use key::check_word;
pub use key::{Key, MAX_KEY_BYTES};
pub use limit::Limit;
pub use seconds::{MAX_SECONDS, Ttl, WaitSecs};
pub use target::{Kind, Target};
pub use token::Token;

#[cfg(test)]
mod tests;
