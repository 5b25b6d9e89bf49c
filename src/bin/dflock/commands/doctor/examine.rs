//! The checks of one server, one after the other.

use std::time::Duration;

use dflockd_client::protocol::functions::{Wire, stats};
use dflockd_client::{ClientOptions, Endpoint, ErrorKind};
use tokio::time::timeout;

use super::abilities::{Abilities, probe};
use super::cluster::{Kind, Member, judge_member};
use super::greet::greet;
use super::leftovers::Leftovers;
use super::limits::{self, Caps};
use super::reach::{reach, resolve};
use super::report::{Check, Finding};
use super::secure::Secure;
use super::way::{Connection, Way, silent};
use super::{latency, lease};
use crate::failure::Failure;

/// What all servers are examined with.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    /// How long one check may take.
    pub(super) limit: Duration,
    /// How many requests the latency is measured with.
    pub(super) requests: usize,
    pub(super) caps: Caps,
}

/// What was found out about one server.
pub(super) struct Examined {
    pub(super) findings: Vec<Finding>,
    pub(super) member: Member,
}

/// Examines one server. A check that fails ends the examination, unless the next ones do not depend on it.
///
/// # Cancel safety
///
/// What is held at the server stands in `leftovers` if the future is dropped.
pub(super) async fn examine(
    options: &ClientOptions,
    endpoint: Endpoint,
    kind: Kind,
    plan: Plan,
    leftovers: &Leftovers,
) -> Examined {
    let member = Member {
        server: endpoint.to_string(),
        answers: false,
        says: None,
    };
    let mut examination = Examination {
        kind,
        plan,
        leftovers,
        examined: Examined {
            findings: Vec::new(),
            member,
        },
    };
    if let Err(failed) = examination.run(options, endpoint).await {
        examination.examined.findings.push(failed);
    }
    examination.examined
}

struct Examination<'a> {
    kind: Kind,
    plan: Plan,
    leftovers: &'a Leftovers,
    examined: Examined,
}

impl Examination<'_> {
    /// Makes all checks. The error is the finding of the check that ended them.
    async fn run(&mut self, options: &ClientOptions, endpoint: Endpoint) -> Result<(), Finding> {
        let limit = self.plan.limit;
        let addresses = self.note(within(Check::Resolve, limit, resolve(&endpoint)).await?);
        // It has a limit for each address.
        let reached = within(Check::Connect, limit * 2, reach(&endpoint, &addresses, limit));
        let reached = self.note(reached.await?);
        let secure = Secure::of(options);
        let secured = within(Check::Tls, limit, secure.handshake(reached.stream, &endpoint)).await?;
        self.examined.findings.push(secured.finding);
        let secret = async { options.read_auth_token().await.map_err(Failure::from) };
        let way = Way {
            address: reached.address,
            token: within(Check::Auth, limit, secret).await?,
            endpoint,
            secure,
            limit,
        };
        let mut connection = Wire::new(secured.stream);
        let serves = self.note(within(Check::Auth, limit, greet(&mut connection, &way)).await?);
        self.examined.member.answers = true;
        let (abilities, connection) = self.note(within(Check::Release, limit, probe(connection, &way)).await?);
        self.at_work(connection, &way, abilities, serves).await
    }

    /// The checks of a server that answers.
    async fn at_work(
        &mut self,
        mut connection: Connection,
        way: &Way,
        abilities: Abilities,
        serves: bool,
    ) -> Result<(), Finding> {
        let Plan { limit, requests, caps } = self.plan;
        let (finding, is_full) = match serves {
            true => {
                let lease = lease::check(&mut connection, way, self.leftovers);
                within(Check::Lease, limit + lease::LONGEST, lease).await?
            }
            false => {
                let why = "this member does not lead: the leader is asked for the lease";
                (Finding::skip(Check::Lease, why), false)
            }
        };
        self.examined.findings.push(finding);
        let latency = latency::check(&mut connection, abilities, requests, limit);
        let finding = within(Check::Latency, limit, latency).await?;
        self.examined.findings.push(finding);
        let told = async {
            match stats(&mut connection).await {
                Ok(stats) => Ok(Some(stats)),
                Err(error) if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::Refused) => Ok(None),
                Err(error) => Err(Failure::from(error)),
            }
        };
        let Some(stats) = within(Check::Limits, limit, told).await? else {
            let unknown = "the server does not know `stats`";
            self.examined
                .findings
                .push(Finding::warn(Check::Limits, unknown, "update the server to 2.1"));
            self.examined.findings.push(Finding::skip(Check::Cluster, unknown));
            return Ok(());
        };
        self.examined.findings.push(limits::judge(&stats, caps, is_full));
        self.examined
            .findings
            .push(judge_member(self.kind, stats.cluster.as_deref()));
        self.examined.member.says = stats.cluster;
        Ok(())
    }

    /// Notes a finding, and returns what the next checks need.
    fn note<T>(&mut self, (finding, found): (Finding, T)) -> T {
        self.examined.findings.push(finding);
        found
    }
}

/// Makes a check within its limit. A failure becomes its finding.
async fn within<T>(
    check: Check,
    limit: Duration,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Finding> {
    match timeout(limit, work).await {
        Ok(done) => done.map_err(|failure| Finding::fail(check, failure)),
        Err(_) => Err(Finding::fail(check, silent(limit))),
    }
}
