//! The report: lines for people, one JSON object for programs, and the exit code. Pure.

use std::fmt::Write as _;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::plain::plain;

/// How a check ended. The variants are in the order of severity, and the most severe one counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// The check was not made.
    Skip,
    Ok,
    /// It works, but a person should look at it.
    Warn,
    /// It does not work.
    Fail,
}

impl Verdict {
    fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }

    /// Returns the terminal code of its colour.
    fn color(self) -> &'static str {
        match self {
            Self::Skip => "2",
            Self::Ok => "32",
            Self::Warn => "33",
            Self::Fail => "31",
        }
    }
}

/// The checks, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Check {
    Resolve,
    Connect,
    Tls,
    Auth,
    Release,
    Lease,
    Latency,
    Limits,
    Cluster,
    /// Of all servers of a shard together: which of them serve it.
    Shard,
}

impl Check {
    /// The checks of one server.
    pub(super) const OF_A_SERVER: [Self; 9] = [
        Self::Resolve,
        Self::Connect,
        Self::Tls,
        Self::Auth,
        Self::Release,
        Self::Lease,
        Self::Latency,
        Self::Limits,
        Self::Cluster,
    ];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Auth => "auth",
            Self::Release => "release",
            Self::Lease => "lease",
            Self::Latency => "latency",
            Self::Limits => "limits",
            Self::Cluster => "cluster",
            Self::Shard => "shard",
        }
    }
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Finding {
    pub(super) check: Check,
    pub(super) verdict: Verdict,
    what: String,
    /// What to do about it.
    #[serde(rename = "do")]
    remedy: Option<String>,
    /// The measured values, for programs.
    facts: Map<String, Value>,
    /// The exit code that a failure stands for.
    #[serde(skip)]
    pub(super) exit: Exit,
}

impl Finding {
    fn new(check: Check, verdict: Verdict, what: impl Into<String>) -> Self {
        Self {
            check,
            verdict,
            what: what.into(),
            remedy: None,
            facts: Map::new(),
            exit: Exit::SUCCESS,
        }
    }

    pub(super) fn ok(check: Check, what: impl Into<String>) -> Self {
        Self::new(check, Verdict::Ok, what)
    }

    pub(super) fn skip(check: Check, why: impl Into<String>) -> Self {
        Self::new(check, Verdict::Skip, why)
    }

    pub(super) fn warn(check: Check, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            remedy: Some(remedy.into()),
            ..Self::new(check, Verdict::Warn, what)
        }
    }

    /// Creates the finding of a failure. If the server failed and the failure has no remedy, the remedy is to look at
    /// the server's log. That log says nothing about a failure of this machine.
    pub(super) fn fail(check: Check, failure: Failure) -> Self {
        let (exit, what, remedy) = failure.into_parts();
        let is_of_server = [Exit::SERVER_AWAY, Exit::NOT_IN_TIME, Exit::REFUSED].contains(&exit);
        let log = is_of_server.then(|| "look at the server's log, and run this again".to_owned());
        Self {
            remedy: remedy.or(log),
            exit,
            ..Self::new(check, Verdict::Fail, what)
        }
    }

    /// Replaces the remedy.
    pub(super) fn remedy(self, remedy: impl Into<String>) -> Self {
        Self {
            remedy: Some(remedy.into()),
            ..self
        }
    }

    /// Adds a measured value.
    pub(super) fn fact(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.facts.insert(name.to_owned(), value.into());
        self
    }
}

/// All lines about one server, or about one shard.
#[derive(Debug, Serialize)]
pub(super) struct Section {
    shard: usize,
    /// The server, or the servers of a shard joined by `+`.
    server: String,
    checks: Vec<Finding>,
}

impl Section {
    pub(super) fn new(shard: usize, server: impl Into<String>, checks: Vec<Finding>) -> Self {
        Self {
            shard,
            server: server.into(),
            checks,
        }
    }

    /// Creates the section of a server: its findings, and for each check that was not reached a line with the reason,
    /// all in the order of the checks.
    pub(super) fn of_server(shard: usize, server: impl Into<String>, mut checks: Vec<Finding>) -> Self {
        let failed = checks.iter().find(|finding| finding.verdict == Verdict::Fail);
        let why = failed.map_or_else(
            || "it was not reached".to_owned(),
            |finding| format!("{} failed", finding.check.as_str()),
        );
        for check in Check::OF_A_SERVER {
            if !checks.iter().any(|finding| finding.check == check) {
                checks.push(Finding::skip(check, why.as_str()));
            }
        }
        checks.sort_by_key(|finding| finding.check);
        Self::new(shard, server, checks)
    }
}

/// All findings.
#[derive(Debug)]
pub(super) struct Report {
    servers: Vec<Section>,
    shards: Vec<Section>,
}

impl Report {
    pub(super) fn new(servers: Vec<Section>, shards: Vec<Section>) -> Self {
        Self { servers, shards }
    }

    fn findings(&self) -> impl Iterator<Item = &Finding> {
        let sections = self.servers.iter().chain(&self.shards);
        sections.flat_map(|section| &section.checks)
    }

    fn verdict(&self) -> Verdict {
        let verdicts = self.findings().map(|finding| finding.verdict);
        verdicts.max().unwrap_or(Verdict::Ok)
    }

    /// Returns the exit code of the first failure, or success.
    pub(super) fn exit(&self) -> Exit {
        let mut failures = self.findings().filter(|finding| finding.verdict == Verdict::Fail);
        failures.next().map_or(Exit::SUCCESS, |finding| finding.exit)
    }

    /// Returns the lines for people, without a line break at the end, with or without colours.
    pub(super) fn text(&self, colors: bool) -> String {
        let painted = |code: &str, text: &str| match colors {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_owned(),
        };
        let mut text = String::new();
        for section in self.servers.iter().chain(&self.shards) {
            let name = plain(&section.server);
            // Writing to a `String` cannot fail.
            let _ = writeln!(text, "{}", painted("1", &format!("{name} (shard {})", section.shard)));
            for finding in &section.checks {
                let (verdict, check) = (finding.verdict.as_str(), finding.check.as_str());
                let blanks = " ".repeat(4_usize.saturating_sub(verdict.len()));
                let verdict = painted(finding.verdict.color(), verdict);
                let _ = writeln!(text, "  {verdict}{blanks}  {check:<7}  {}", plain(&finding.what));
                if let Some(remedy) = &finding.remedy {
                    let head = painted("36", "try:");
                    let _ = writeln!(text, "  {:<4}  {:<7}  {head} {}", "", "", plain(remedy));
                }
            }
        }
        let count = |verdict| self.findings().filter(|finding| finding.verdict == verdict).count();
        let counts = [Verdict::Ok, Verdict::Warn, Verdict::Fail, Verdict::Skip];
        let counts = counts.map(|verdict| format!("{} {}", count(verdict), verdict.as_str()));
        text + &counts.join(", ")
    }
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Told<'a> {
            verdict: Verdict,
            exit: u8,
            servers: &'a [Section],
            shards: &'a [Section],
        }
        let told = Told {
            verdict: self.verdict(),
            exit: self.exit().code(),
            servers: &self.servers,
            shards: &self.shards,
        };
        told.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(exit: Exit) -> Failure {
        Failure::new(exit, "it is\u{1b} refused").remedy("start it")
    }

    fn report() -> Report {
        let connect = vec![
            Finding::ok(Check::Resolve, "an address").fact("addresses", json!(["127.0.0.1"])),
            Finding::fail(Check::Connect, refused(Exit::SERVER_AWAY)),
        ];
        let shard = Finding::warn(Check::Shard, "one is away", "start it");
        Report::new(
            vec![Section::of_server(0, "a:1", connect)],
            vec![Section::new(0, "a:1+b:1", vec![shard])],
        )
    }

    #[test]
    fn checks_that_were_not_reached_are_skipped_with_the_reason() {
        let text = report().text(false);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "a:1 (shard 0)");
        assert_eq!(lines[1], "  ok    resolve  an address");
        assert_eq!(lines[2], r"  fail  connect  it is\u{1b} refused");
        assert_eq!(lines[3], "                 try: start it");
        assert_eq!(lines[4], "  skip  tls      connect failed");
        assert_eq!(lines[10], "  skip  cluster  connect failed");
        assert_eq!(lines[11], "a:1+b:1 (shard 0)");
        assert_eq!(*lines.last().unwrap(), "1 ok, 1 warn, 1 fail, 7 skip");
    }

    #[test]
    fn lines_have_the_order_of_the_checks_and_each_failure_of_a_server_names_a_remedy() {
        let without_remedy = Failure::new(Exit::REFUSED, "it is refused");
        let checks = vec![
            Finding::ok(Check::Cluster, "alone"),
            Finding::fail(Check::Lease, without_remedy),
        ];
        let told = serde_json::to_value(Section::of_server(0, "a:1", checks)).unwrap();
        let checks = told["checks"].as_array().unwrap();
        let names: Vec<&str> = checks.iter().filter_map(|check| check["check"].as_str()).collect();
        assert_eq!(names, Check::OF_A_SERVER.map(Check::as_str));
        assert!(checks[5]["do"].is_string(), "{told}");
        let of_this_machine = Finding::fail(Check::Lease, Failure::new(Exit::SYSTEM, "the system refused"));
        assert_eq!(of_this_machine.remedy, None);
    }

    #[test]
    fn text_has_colours_only_on_demand() {
        let text = report().text(true);
        for painted in [
            "\x1b[1ma:1 (shard 0)\x1b[0m\n",
            "  \x1b[32mok\x1b[0m    resolve  ",
            "  \x1b[31mfail\x1b[0m  connect  ",
            "  \x1b[2mskip\x1b[0m  tls      ",
            "  \x1b[33mwarn\x1b[0m  shard    ",
            "\x1b[36mtry:\x1b[0m start it",
        ] {
            assert!(text.contains(painted), "{painted:?}: {text}");
        }
        assert!(!report().text(false).contains('\x1b'));
    }

    #[test]
    fn programs_get_the_worst_verdict_the_exit_code_and_all_lines() {
        let told = serde_json::to_value(report()).unwrap();
        assert_eq!((&told["verdict"], &told["exit"]), (&json!("fail"), &json!(69)));
        let expected = json!({"check": "resolve", "verdict": "ok", "what": "an address", "do": null, "facts": {"addresses": ["127.0.0.1"]}});
        assert_eq!(told["servers"][0]["checks"][0], expected);
        assert_eq!(told["servers"][0]["checks"][1]["do"], "start it");
        assert_eq!(told["shards"][0]["checks"][0]["check"], "shard");
    }

    #[test]
    fn the_first_failure_determines_the_exit_code_and_warnings_do_not() {
        assert_eq!(report().exit(), Exit::SERVER_AWAY);
        let warned = Finding::warn(Check::Limits, "near", "more");
        let report = Report::new(vec![Section::new(0, "a:1", vec![warned])], Vec::new());
        assert_eq!((report.exit(), report.verdict()), (Exit::SUCCESS, Verdict::Warn));
    }
}
