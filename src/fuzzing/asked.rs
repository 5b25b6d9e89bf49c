//! The requests to which answers are parsed.

use crate::protocol::{AuthToken, Channel, Pattern, Payload, Request};
use crate::types::{Key, Limit, Target, Token, Ttl, WaitSecs};

/// Returns a request about `name`, a valid key and channel. The first [`NAMED`] choices are the kinds of requests
/// whose lines contain the name.
pub(super) fn request(choice: u8, name: &str) -> Request {
    let key = Key::new(name).unwrap();
    let target = match choice / 16 % 2 {
        0 => Target::Lock,
        _ => Target::Semaphore(Limit::new(2).unwrap()),
    };
    let kind = target.kind();
    let ttl = Ttl::from_secs(u64::from(choice / 32));
    let wait = WaitSecs::from_secs(u64::from(choice / 64)).unwrap();
    let token = Token::NEVER_ISSUED;
    match choice % 12 {
        0 => Request::Acquire {
            target,
            key,
            wait: WaitSecs::TRY,
            ttl,
        },
        1 => Request::Acquire { target, key, wait, ttl },
        2 => Request::Enqueue { target, key, ttl },
        3 => Request::Wait { kind, key, wait },
        4 => Request::Release { kind, key, token },
        5 => Request::Renew { kind, key, token, ttl },
        6 => Request::Listen {
            pattern: Pattern::new(name).unwrap(),
            group: None,
        },
        7 => {
            let channel = Channel::new(name).unwrap();
            let payload = Payload::new(&channel, "x").unwrap();
            Request::Signal { channel, payload }
        }
        8 => Request::Stats,
        9 => Request::Ping,
        10 => Request::Barrier,
        _ => Request::Auth {
            token: AuthToken::new("a secret").unwrap(),
        },
    }
}

/// The number of kinds of requests whose lines contain the name. These kinds come first.
pub(super) const NAMED: u8 = 8;
