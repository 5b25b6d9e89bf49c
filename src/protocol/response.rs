//! Answers of a server: one line each.

use std::fmt;

use bytes::{BufMut, BytesMut};

use super::quoted::Quoted;
use super::request::{Expect, number, read_number};
use super::status::Status;
use crate::types::{Fence, Grant, Token, Ttl};

/// An answer that has the shape which its request requires.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Response {
    /// `ok`.
    Done,
    /// `ok <token> <ttl> [<fence>]`: granted.
    Granted(Grant),
    /// `acquired <token> <ttl> [<fence>]`: granted at once, without a position in the queue.
    Acquired(Grant),
    /// `queued`: a position in the queue.
    Queued,
    /// `timeout`: not granted in time.
    TimedOut,
    /// `ok [<seconds>]`: renewed, with the time that is left if the server names it.
    Renewed(Option<u64>),
    /// `ok <number>`.
    Count(u64),
    /// `ok <json>`.
    Json(Box<str>),
    /// A refusal.
    Refused(Status),
}

/// A line that does not have the shape which its request requires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadResponse {
    line: Quoted,
    expected: Expect,
}

impl fmt::Display for BadResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let expected = match self.expected {
            Expect::Done => "ok",
            Expect::Grant => "ok <token> <ttl> or timeout",
            Expect::Place => "acquired <token> <ttl> or queued",
            Expect::Renewal => "ok <seconds>",
            Expect::Count => "ok <number>",
            Expect::Json => "ok <json>",
        };
        write!(
            f,
            "the peer answered {:?} where a dflockd server answers `{expected}`",
            self.line
        )
    }
}

impl std::error::Error for BadResponse {}

impl Response {
    /// Parses a line as the answer to a request that expects `expect`.
    ///
    /// Fields after the known ones are ignored, because newer servers may add some.
    ///
    /// # Errors
    ///
    /// [`BadResponse`] if no server would give that answer: the connection is out of step.
    pub fn decode(expect: Expect, line: &str) -> Result<Self, BadResponse> {
        Self::read(expect, line).ok_or_else(|| BadResponse {
            line: Quoted::of(line),
            expected: expect,
        })
    }

    fn read(expect: Expect, line: &str) -> Option<Self> {
        let (status, rest) = line.split_once(' ').unwrap_or((line, ""));
        match (status, expect) {
            ("ok", Expect::Grant) => read_grant(rest).map(Self::Granted),
            ("acquired", Expect::Place) => read_grant(rest).map(Self::Acquired),
            ("queued", Expect::Place) => Some(Self::Queued),
            ("timeout", Expect::Grant) => Some(Self::TimedOut),
            // A grant here would be the answer to another request.
            ("ok", Expect::Done) => read_grant(rest).is_none().then_some(Self::Done),
            ("ok", Expect::Renewal) if rest.is_empty() => Some(Self::Renewed(None)),
            ("ok", Expect::Renewal) => read_number(first_field(rest)).map(|left| Self::Renewed(Some(left))),
            ("ok", Expect::Count) => read_number(first_field(rest)).map(Self::Count),
            ("ok", Expect::Json) => rest.starts_with('{').then(|| Self::Json(rest.into())),
            _ => Status::parse(line).map(Self::Refused),
        }
    }

    /// Appends the line to a buffer.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Done | Self::Renewed(None) => out.extend_from_slice(b"ok"),
            Self::Granted(grant) => encode_grant(out, b"ok ", grant),
            Self::Acquired(grant) => encode_grant(out, b"acquired ", grant),
            Self::Queued => out.extend_from_slice(b"queued"),
            Self::TimedOut => out.extend_from_slice(b"timeout"),
            Self::Renewed(Some(count)) | Self::Count(count) => {
                out.extend_from_slice(b"ok ");
                number(out, *count);
            }
            Self::Json(json) => {
                out.extend_from_slice(b"ok ");
                out.extend_from_slice(json.as_bytes());
            }
            Self::Refused(status) => out.extend_from_slice(status.to_string().as_bytes()),
        }
        out.put_u8(b'\n');
    }
}

fn encode_grant(out: &mut BytesMut, status: &[u8], grant: &Grant) {
    out.extend_from_slice(status);
    out.extend_from_slice(grant.token.as_str().as_bytes());
    out.put_u8(b' ');
    number(out, grant.ttl.as_secs());
    if let Some(fence) = grant.fence {
        out.put_u8(b' ');
        number(out, fence.0);
    }
}

fn read_grant(fields: &str) -> Option<Grant> {
    let mut fields = fields.split(' ');
    let token = Token::parse(fields.next()?.as_bytes())?;
    let ttl = Ttl::from_secs(read_number(fields.next()?)?)?;
    let fence = fields.next().and_then(|field| field.parse().ok()).map(Fence);
    Some(Grant { token, ttl, fence })
}

fn first_field(fields: &str) -> &str {
    fields.split(' ').next().unwrap_or(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "00000000000000070123456789abcdef";

    fn text(expect: Expect, line: &str) -> String {
        match Response::decode(expect, line) {
            Ok(response) => format!("{response:?}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn fields_that_newer_servers_add_are_ignored() {
        let line = format!("ok {TOKEN} 10 99 later");
        let Ok(Response::Granted(grant)) = Response::decode(Expect::Grant, &line) else {
            panic!("{}", text(Expect::Grant, &line));
        };
        assert_eq!((grant.ttl.as_secs(), grant.fence), (10, Some(Fence(99))));
        let Ok(Response::Granted(grant)) = Response::decode(Expect::Grant, &format!("ok {TOKEN} 10 later")) else {
            panic!("a third field that is not a number is neither a fence nor an error");
        };
        assert_eq!(grant.fence, None);
        assert_eq!(
            Response::decode(Expect::Renewal, "ok 20 x"),
            Ok(Response::Renewed(Some(20)))
        );
        assert_eq!(Response::decode(Expect::Done, "ok x"), Ok(Response::Done));
    }

    #[test]
    fn missing_fields_and_unknown_statuses_show_the_line() {
        for (expect, line) in [
            (Expect::Grant, "ok"),
            (Expect::Grant, "ok 0123 10"),
            (Expect::Grant, "queued"),
            (Expect::Place, "ok"),
            (Expect::Renewal, "ok soon"),
            (Expect::Json, "ok"),
            (Expect::Done, "okay"),
            (Expect::Done, "HTTP/1.1 400 Bad Request"),
            (Expect::Done, "error_brand_new"),
            (Expect::Done, ""),
        ] {
            let said = text(expect, line);
            assert!(said.contains(&format!("{line:?}")), "{said}");
        }
    }

    #[test]
    fn a_grant_in_answer_to_a_release_is_out_of_step_and_shown_without_its_token() {
        let said = text(Expect::Done, &format!("ok {TOKEN} 10"));
        assert!(said.contains("00000000…") && !said.contains(TOKEN), "{said}");
    }

    #[test]
    fn a_bad_response_keeps_only_the_beginning_of_its_line() {
        let bad = Response::decode(Expect::Done, &"é".repeat(500_000)).unwrap_err();
        assert_eq!(bad.line.as_str().len(), 256);
    }

    #[test]
    fn a_leader_that_is_not_an_address_is_dropped() {
        let long = format!("error_not_leader {}", "a".repeat(257));
        for line in ["error_not_leader \u{1b}[31mred", "error_not_leader é:1", long.as_str()] {
            assert_eq!(
                Response::decode(Expect::Grant, line),
                Ok(Response::Refused(Status::NotLeader(None))),
                "{line:?}"
            );
        }
    }

    #[test]
    fn not_leader_keeps_the_address() {
        assert_eq!(
            Response::decode(Expect::Grant, "error_not_leader 10.0.0.1:6388"),
            Ok(Response::Refused(Status::NotLeader(Some("10.0.0.1:6388".into()))))
        );
        assert_eq!(
            Response::decode(Expect::Grant, "error_not_leader"),
            Ok(Response::Refused(Status::NotLeader(None)))
        );
    }
}
