//! A request as a server reads it.

use super::fields::{Fields, number, trim};
use crate::types::{Kind, Token, Ttl, WaitSecs};

/// The three lines of a request, without line ends. They may contain any bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequestLines<'a> {
    pub(crate) command: &'a [u8],
    pub(crate) key: &'a [u8],
    pub(crate) argument: &'a [u8],
}

/// A request whose lines are well-formed. It covers more than [`Request`](super::Request): servers accept keys, tokens
/// and channels of almost any bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RawRequest<'a> {
    Auth {
        token: &'a [u8],
    },
    Acquire {
        kind: Kind,
        key: &'a [u8],
        /// 1 for a lock.
        limit: u64,
        wait: WaitSecs,
        ttl: Option<Ttl>,
    },
    Enqueue {
        kind: Kind,
        key: &'a [u8],
        /// 1 for a lock.
        limit: u64,
        ttl: Option<Ttl>,
    },
    Wait {
        kind: Kind,
        key: &'a [u8],
        wait: WaitSecs,
    },
    Release {
        kind: Kind,
        key: &'a [u8],
        token: Token,
    },
    Renew {
        kind: Kind,
        key: &'a [u8],
        token: Token,
        ttl: Option<Ttl>,
    },
    Stats,
    Ping,
    Barrier,
    StableRef {
        reference: &'a [u8],
    },
    Listen {
        pattern: &'a [u8],
        /// Empty for no group, here and in `Unlisten`.
        group: &'a [u8],
    },
    Unlisten {
        pattern: &'a [u8],
        group: &'a [u8],
    },
    Signal {
        channel: &'a [u8],
        payload: &'a [u8],
    },
}

impl<'a> RawRequest<'a> {
    /// Parses the lines. Returns `None` for requests that every server answers with `error`. Requests that only some
    /// releases accept are parsed.
    pub(crate) fn read(lines: RequestLines<'a>) -> Option<Self> {
        let RequestLines { command, key, argument } = lines;
        let kind = match command {
            [b's', ..] => Kind::Semaphore,
            _ => Kind::Lock,
        };
        let mut fields = Fields::of(argument);
        let request = match command {
            b"auth" => return Some(Self::Auth { token: trim(argument) }),
            b"stats" => return Some(Self::Stats),
            b"ping" => return Some(Self::Ping),
            b"barrier" => return Some(Self::Barrier),
            b"stable-ref" => return Some(Self::StableRef { reference: trim(key) }),
            _ if !is_word(key) => return None,
            b"l" | b"sl" => Self::Acquire {
                kind,
                key,
                wait: wait(&mut fields)?,
                limit: limit(kind, &mut fields)?,
                ttl: ttl(&mut fields)?,
            },
            b"e" | b"se" => Self::Enqueue {
                kind,
                key,
                limit: limit(kind, &mut fields)?,
                ttl: ttl(&mut fields)?,
            },
            b"w" | b"sw" => Self::Wait {
                kind,
                key,
                wait: wait(&mut fields)?,
            },
            b"r" | b"sr" => Self::Release {
                kind,
                key,
                token: token(&mut fields)?,
            },
            b"n" | b"sn" => Self::Renew {
                kind,
                key,
                token: token(&mut fields)?,
                ttl: ttl(&mut fields)?,
            },
            b"listen" => {
                return Some(Self::Listen {
                    pattern: key,
                    group: trim(argument),
                });
            }
            b"unlisten" => {
                return Some(Self::Unlisten {
                    pattern: key,
                    group: trim(argument),
                });
            }
            b"signal" if !argument.is_empty() => {
                return Some(Self::Signal {
                    channel: key,
                    payload: argument,
                });
            }
            _ => return None,
        };
        (!fields.skip_blanks()).then_some(request)
    }
}

/// Returns whether servers accept the bytes as a key, a pattern or a channel.
fn is_word(key: &[u8]) -> bool {
    !key.is_empty() && !key.iter().any(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'))
}

fn wait(fields: &mut Fields<'_>) -> Option<WaitSecs> {
    WaitSecs::from_secs(u64::try_from(number(fields.next()?)?).ok()?)
}

fn ttl(fields: &mut Fields<'_>) -> Option<Option<Ttl>> {
    match fields.next() {
        None => Some(None),
        Some(field) => Ttl::from_secs(u64::try_from(number(field)?).ok()?).map(Some),
    }
}

fn limit(kind: Kind, fields: &mut Fields<'_>) -> Option<u64> {
    match kind {
        Kind::Lock => Some(1),
        Kind::Semaphore => u64::try_from(number(fields.next()?)?).ok().filter(|limit| *limit > 0),
    }
}

/// Parses a token. Servers answer any other word like a malformed request, because no lease has such a token.
fn token(fields: &mut Fields<'_>) -> Option<Token> {
    Token::parse(fields.next()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<'a>(command: &'a str, key: &'a [u8], argument: &'a [u8]) -> Option<RawRequest<'a>> {
        RawRequest::read(RequestLines {
            command: command.as_bytes(),
            key,
            argument,
        })
    }

    fn acquire(key: &[u8], limit: Option<u64>, wait: u64, ttl: Option<u64>) -> Option<RawRequest<'_>> {
        Some(RawRequest::Acquire {
            kind: if limit.is_some() { Kind::Semaphore } else { Kind::Lock },
            key,
            limit: limit.unwrap_or(1),
            wait: WaitSecs::from_secs(wait)?,
            ttl: ttl.and_then(Ttl::from_secs),
        })
    }

    #[test]
    fn fields_are_separated_by_any_blanks_and_numbers_have_signs() {
        assert_eq!(read("l", b"k", b" \t+5\x0b\x0c007 "), acquire(b"k", None, 5, Some(7)));
        assert_eq!(read("l", b"k", b"-0"), acquire(b"k", None, 0, None));
        assert_eq!(
            read("sl", b"k", b"0 4294967296 9"),
            acquire(b"k", Some(1 << 32), 0, Some(9))
        );
        assert_eq!(
            read("se", b"k", b"\xc2\xa09223372036854775807"),
            Some(RawRequest::Enqueue {
                kind: Kind::Semaphore,
                key: b"k",
                limit: i64::MAX as u64,
                ttl: None
            })
        );
    }

    #[test]
    fn keys_are_any_bytes_except_spaces_tabs_and_line_ends() {
        for key in [&b"a\x0b\x0c\0"[..], b"\xc2\xa0", b"\xff\xfe", "漢".as_bytes()] {
            assert_eq!(read("l", key, b"0"), acquire(key, None, 0, None));
        }
        for key in [&b""[..], b"a b", b"\ta", b"a\rb"] {
            assert_eq!(read("l", key, b"0"), None);
        }
    }

    #[test]
    fn requests_that_every_server_refuses() {
        for (command, argument) in [
            ("l", ""),
            ("l", "-1"),
            ("l", "1 0"),
            ("l", "1 2 3"),
            ("l", "x"),
            ("l", "1 9223372037"),
            ("sl", "1"),
            ("sl", "1 0"),
            ("sl", "1 -1"),
            ("sl", "1 9223372036854775808"),
            ("sl", "1 2 3 4"),
            ("e", "1 2"),
            ("se", ""),
            ("w", ""),
            ("w", "1 2"),
            ("r", ""),
            ("r", "0123"),
            ("n", "0123456789abcdef0123456789abcdef 0"),
            ("signal", ""),
            ("L", "0"),
            (" l", "0"),
            ("", "0"),
        ] {
            assert_eq!(read(command, b"k", argument.as_bytes()), None, "{command} {argument}");
        }
    }

    #[test]
    fn secrets_and_groups_are_trimmed_and_payloads_are_not() {
        assert_eq!(read("auth", b"", b" a b\t"), Some(RawRequest::Auth { token: b"a b" }));
        let (pattern, group) = (&b"p"[..], &b"two words"[..]);
        assert_eq!(
            read("listen", b"p", b" two words "),
            Some(RawRequest::Listen { pattern, group })
        );
        let (channel, payload) = (&b"c"[..], &b" x "[..]);
        assert_eq!(
            read("signal", b"c", b" x "),
            Some(RawRequest::Signal { channel, payload })
        );
    }
}
