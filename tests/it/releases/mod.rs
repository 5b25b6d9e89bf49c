//! Tests of the releases that the embedded server imitates. The tests use sockets. They show the differences between
//! the releases, and what the real servers accept and answer.

mod closing;
mod commands;
mod reading;
mod stats;

use std::time::Duration;

use crate::support::raw::Heard;
use dflockd_client::server::{Release, Server, ServerBuilder};

const SOON: Duration = Duration::from_secs(10);

/// Long enough to see that no answer comes.
const A_WHILE: Duration = Duration::from_millis(150);

async fn start(builder: ServerBuilder) -> (Server, String) {
    let server = builder.port(0).start().await.unwrap();
    let address = server.local_addr().to_string();
    (server, address)
}

async fn imitate(release: Release) -> (Server, String) {
    start(Server::builder().release(release)).await
}

fn line(text: &str) -> Heard {
    Heard::Line(text.to_owned())
}

fn token(grant: &str) -> String {
    grant.split(' ').nth(1).expect(grant).to_owned()
}

fn waiters(server: &Server) -> u64 {
    server.stats().locks.iter().map(|lock| lock.waiters).sum()
}

/// Returns all releases. The second value says whether a release is `first` or later.
fn since(first: Release) -> impl Iterator<Item = (Release, bool)> {
    Release::ALL.into_iter().map(move |release| (release, release >= first))
}

/// Returns whether the line matches `expected`. A `$` in `expected` stands for a token.
fn is_like(heard: &Heard, expected: &str) -> bool {
    let Heard::Line(heard) = heard else { return false };
    let (heard, expected): (Vec<&str>, Vec<&str>) = (heard.split(' ').collect(), expected.split(' ').collect());
    heard.len() == expected.len()
        && heard.iter().zip(expected).all(|(heard, expected)| match expected {
            "$" => heard.len() == 32,
            expected => *heard == expected,
        })
}
