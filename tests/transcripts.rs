//! Replays conversations that were recorded from a real server. They are stored in `tests/data`.
//!
//! By default, the test replays each conversation with every release that must answer as recorded. Each replay has a
//! new embedded server.
//!
//! With `DFLOCKD_TEST_BINARY=path`, the test replays each conversation once, with that server binary and the
//! conversation's flags. `DFLOCKD_TEST_BINARY_RELEASE_FLAG=--release` names the binary's flag for the imitated release.
//! `DFLOCKD_TEST_BINARY_SUBCOMMAND=serve` sets the binary's first argument.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use dflockd_client::server::{Release, Server, ServerBuilder};
use serde::Deserialize;
use serde_json::{Map, Value};
use support::process::ServerProcess;
use support::raw::{Heard, RawConnection};
use tokio::sync::Semaphore;

#[derive(Deserialize)]
struct Conversation {
    name: String,
    why: String,
    flags: Vec<String>,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    #[serde(rename = "do")]
    action: Action,
    conn: Option<String>,
    lines: Option<Vec<String>>,
    raw: Option<String>,
    line: Option<String>,
    within_ms: Option<u64>,
    ms: Option<u64>,
}

#[derive(Deserialize, Debug)]
#[serde(rename_all = "lowercase")]
enum Action {
    Send,
    Recv,
    Silent,
    Closed,
    Stats,
    Open,
    Close,
    Sleep,
}

/// A server. It ends when this value is dropped.
enum Peer {
    Embedded(Server),
    Process(ServerProcess),
}

impl Peer {
    async fn start(flags: &[String], release: Release) -> Self {
        match std::env::var_os("DFLOCKD_TEST_BINARY") {
            Some(binary) => {
                let mut command = Command::new(binary);
                command
                    .args(std::env::var_os("DFLOCKD_TEST_BINARY_SUBCOMMAND"))
                    .args(flags);
                if let Some(flag) = std::env::var_os("DFLOCKD_TEST_BINARY_RELEASE_FLAG") {
                    command.arg(flag).arg(release.to_string());
                }
                Self::Process(
                    tokio::task::spawn_blocking(move || ServerProcess::start(command))
                        .await
                        .unwrap(),
                )
            }
            None => Self::Embedded(with_flags(flags).release(release).port(0).start().await.unwrap()),
        }
    }

    fn address(&self) -> String {
        match self {
            Self::Embedded(server) => server.local_addr().to_string(),
            Self::Process(server) => server.address.clone(),
        }
    }
}

/// Returns a builder with the options that the flags of a conversation set.
fn with_flags(flags: &[String]) -> ServerBuilder {
    let mut builder = Server::builder();
    let mut flags = flags.iter();
    while let Some(flag) = flags.next() {
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name, value.to_owned()),
            None => (flag.as_str(), flags.next().expect("a value").clone()),
        };
        builder = match name {
            "--max-locks" => builder.max_locks(value.parse().unwrap()),
            "--max-waiters" => builder.max_waiters(value.parse().unwrap()),
            "--max-connections" => builder.max_connections(value.parse().unwrap()),
            "--read-timeout" => builder.read_timeout(Duration::from_secs(value.parse().unwrap())),
            "--auto-release-on-disconnect" => builder.auto_release_on_disconnect(value.parse().unwrap()),
            "--auth-token" => builder.auth_token(value),
            other => panic!("no conversation used {other} before: map it here"),
        };
    }
    builder
}

#[derive(Default)]
struct Tokens {
    by_name: HashMap<String, String>,
}

impl Tokens {
    /// Replaces the names of tokens by the real tokens.
    fn fill(&self, text: &str) -> String {
        let mut names: Vec<&String> = self.by_name.keys().collect();
        // `$t10` is replaced before `$t1`, because `$t10` begins with `$t1`.
        names.sort_by_key(|name| std::cmp::Reverse(name.len()));
        names.into_iter().fold(text.to_owned(), |text, name| {
            text.replace(name.as_str(), &self.by_name[name])
        })
    }

    /// Returns whether a line matches the expected line. A token name that appears for the first time gets its token
    /// from this line.
    fn matches(&mut self, expected: &str, line: &str) -> bool {
        let expected: Vec<&str> = expected.split(' ').collect();
        let got: Vec<&str> = line.split(' ').collect();
        expected.len() == got.len()
            && expected.iter().zip(got).all(|(expected, got)| {
                if !expected.starts_with("$t") {
                    return *expected == got;
                }
                let is_token = got.len() == 32 && got.bytes().all(|b| b.is_ascii_hexdigit());
                let is_new = !self.by_name.values().any(|token| token == got);
                match self.by_name.get(*expected) {
                    Some(known) => known == got,
                    None if is_token && is_new => {
                        self.by_name.insert((*expected).to_owned(), got.to_owned());
                        true
                    }
                    None => false,
                }
            })
    }
}

/// Returns only the fields that the test compares, with their lists sorted.
fn reduce(value: &Value) -> Value {
    const FIELDS: [&str; 7] = [
        "connections",
        "locks",
        "semaphores",
        "key",
        "waiters",
        "limit",
        "holders",
    ];
    match value {
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(name, _)| FIELDS.contains(&name.as_str()));
            Value::Object(
                kept.map(|(name, value)| (name.clone(), reduce(value)))
                    .collect::<Map<_, _>>(),
            )
        }
        Value::Array(items) => {
            let mut items: Vec<Value> = items.iter().map(reduce).collect();
            items.sort_by_key(ToString::to_string);
            Value::Array(items)
        }
        other => other.clone(),
    }
}

async fn play(conversation: Conversation, release: Release) -> Result<(), String> {
    let peer = Peer::start(&conversation.flags, release).await;
    let address = peer.address();
    let mut connections: HashMap<String, RawConnection> = HashMap::new();
    let mut tokens = Tokens::default();
    for (number, step) in conversation.steps.iter().enumerate() {
        let said = |what: String| {
            format!(
                "{release}: {} ({}), step {} {:?}: {what}",
                conversation.name,
                conversation.why,
                number + 1,
                step.action
            )
        };
        let pause = Duration::from_millis(step.ms.unwrap_or_default());
        if let Action::Sleep = step.action {
            tokio::time::sleep(pause).await;
            continue;
        }
        let name = step.conn.clone().expect("a connection");
        if let Action::Close = step.action {
            if let Some(connection) = connections.remove(&name) {
                connection.hang_up().await;
            }
            continue;
        }
        if !connections.contains_key(&name) {
            connections.insert(name.clone(), RawConnection::open(&address).await);
        }
        let connection = connections.get_mut(&name).unwrap();
        let within = Duration::from_millis(step.within_ms.unwrap_or(3000));
        match step.action {
            Action::Open | Action::Close | Action::Sleep => {}
            Action::Send => {
                let text = match (&step.raw, &step.lines) {
                    (Some(raw), _) => raw.clone(),
                    (None, Some(lines)) => lines.iter().map(|line| format!("{line}\n")).collect(),
                    (None, None) => panic!("nothing to send"),
                };
                connection.send(&tokens.fill(&text)).await;
            }
            Action::Recv => {
                let expected = step.line.as_deref().unwrap();
                let heard = connection.hear(within).await;
                let right = match &heard {
                    Heard::Closed => expected == "<closed>",
                    Heard::Line(line) => tokens.matches(expected, line),
                    Heard::Nothing => false,
                };
                if !right {
                    return Err(said(format!("expected {expected:?}, got {heard:?}")));
                }
            }
            Action::Stats => {
                let expected = step.line.as_deref().unwrap().strip_prefix("ok ").unwrap();
                let expected = reduce(&serde_json::from_str(expected).unwrap());
                let heard = connection.hear(within).await;
                let got = match &heard {
                    Heard::Line(line) => line
                        .strip_prefix("ok ")
                        .and_then(|json| serde_json::from_str(json).ok()),
                    _ => None,
                };
                if got.as_ref().map(reduce) != Some(expected.clone()) {
                    return Err(said(format!("expected {expected}, got {heard:?}")));
                }
            }
            Action::Silent => {
                let heard = connection.hear(pause).await;
                if heard != Heard::Nothing {
                    return Err(said(format!("expected silence, got {heard:?}")));
                }
            }
            Action::Closed => {
                let heard = connection.hear(within).await;
                if heard != Heard::Closed {
                    return Err(said(format!("expected the end, got {heard:?}")));
                }
            }
        }
    }
    Ok(())
}

/// How many conversations are replayed at once. After a request that blocks, a conversation waits for a short time. It
/// then sends the next request over another connection. With more conversations at once, the server might not have read
/// the blocking request by then.
const AT_ONCE: usize = 50;

/// Plays each conversation of a file with each release, and returns the number of conversations.
async fn replay(file: &str, releases: impl IntoIterator<Item = Release>) -> usize {
    let mut releases: Vec<Release> = releases.into_iter().collect();
    if std::env::var_os("DFLOCKD_TEST_BINARY").is_some() {
        releases.truncate(1);
    }
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(file);
    let text = std::fs::read_to_string(path).unwrap();
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut playing = tokio::task::JoinSet::new();
    for line in text.lines() {
        for release in &releases {
            let conversation: Conversation = serde_json::from_str(line).unwrap();
            if !answers_so(*release, &conversation) {
                continue;
            }
            let (release, turns) = (*release, Arc::clone(&turns));
            playing.spawn(async move {
                let _turn = turns.acquire_owned().await.unwrap();
                play(conversation, release).await
            });
        }
    }
    let played = playing.len();
    let failed: Vec<String> = playing.join_all().await.into_iter().filter_map(Result::err).collect();
    assert!(
        failed.is_empty(),
        "{} of {played} conversations differ from the recorded ones:\n{}",
        failed.len(),
        failed.join("\n")
    );
    text.lines().count()
}

/// Returns whether a release must answer as recorded. Builds with clusters do not time out a connection on which no
/// request has begun.
fn answers_so(release: Release, conversation: &Conversation) -> bool {
    conversation.name != "read-timeout" || release.to_string() != "cluster"
}

/// These conversations were recorded from release 1.10. One conversation is not replayed on builds with clusters: see
/// [`answers_so`].
#[tokio::test(flavor = "multi_thread")]
async fn recorded_conversations_about_locks_and_semaphores_are_replayed() {
    assert_eq!(replay("locks.jsonl", Release::ALL).await, 56);
}

/// Returns whether a release has signals.
fn has_signals(release: &Release) -> bool {
    (Release::V1_11..=Release::V1_16).contains(release)
}

/// These conversations were recorded from a build between 1.10 and 1.11.
#[tokio::test(flavor = "multi_thread")]
async fn recorded_conversations_about_signals_are_replayed() {
    let releases = Release::ALL.into_iter().filter(has_signals);
    assert_eq!(replay("signals.jsonl", releases).await, 24);
}
