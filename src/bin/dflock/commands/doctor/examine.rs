//! The checks of one server, one after the other.

use std::time::Duration;

use dflockd_client::protocol::functions::Wire;
use dflockd_client::{ClientOptions, Endpoint, Stats};
use tokio::time::timeout;

use super::abilities::{probe, state};
use super::cluster::{Kind, Member, judge_member};
use super::greet::{greet, serves_leases};
use super::leftovers::Leftovers;
use super::limits::{self, Caps};
use super::reach::{reach, resolve};
use super::report::{Check, Finding};
use super::secure::Secure;
use super::way::{Connection, Way, silent};
use super::{latency, lease};
use crate::exit::Exit;
use crate::failure::Failure;

/// The parameters of an examination, the same for all servers.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    /// How long one check may take.
    pub(super) limit: Duration,
    /// Number of requests that measure the latency.
    pub(super) requests: usize,
    pub(super) caps: Caps,
}

/// The results of one server's examination.
pub(super) struct Examined {
    pub(super) findings: Vec<Finding>,
    pub(super) member: Member,
}

/// Examines one server. A failed check ends the examination if the later checks depend on it.
///
/// # Cancel safety
///
/// If the future is dropped, `leftovers` lists the leases that are still held at the server.
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
        grants: false,
        is_full: false,
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
    /// Makes all checks. The error is the finding of the check that ended the examination.
    async fn run(&mut self, options: &ClientOptions, endpoint: Endpoint) -> Result<(), Finding> {
        let limit = self.plan.limit;
        let addresses = self.note(within(Check::Resolve, limit, resolve(&endpoint)).await?);
        // `reach` itself applies the limit to each address.
        let reached = within(Check::Connect, limit * 2, reach(&endpoint, &addresses, limit));
        let reached = self.note(reached.await?);
        let secure = Secure::of(options);
        let secured = within(Check::Tls, limit, secure.handshake(reached.stream, &endpoint)).await?;
        self.add(secured.finding);
        let auth_token = async { options.read_auth_token().await.map_err(Failure::from) };
        let way = Way {
            address: reached.address,
            token: within(Check::Auth, limit, auth_token).await?,
            endpoint,
            secure,
            limit,
        };
        let mut connection = Wire::new(secured.stream);
        let greeted = within(Check::Auth, limit, greet(&mut connection, &way, self.kind)).await?;
        self.add(greeted);
        self.examined.member.answers = true;
        // The state comes first: a leader that reaches no majority still reports its state, and answers little else.
        let (stats, connection) = match within(Check::Limits, limit, state(connection, &way)).await {
            Ok(answered) => answered,
            Err(failed) => {
                self.add(failed);
                // The old connection may be in the middle of an answer.
                let connection = within(Check::Release, limit, way.open()).await?;
                return self.check_service(connection, &way).await;
            }
        };
        self.examined.member.says = stats.as_ref().and_then(|stats| stats.cluster.clone());
        if let Err(failed) = self.check_service(connection, &way).await {
            self.add(failed);
        }
        self.judge(stats.as_ref());
        Ok(())
    }

    /// Makes the checks that need a server that answers, but not its state.
    async fn check_service(&mut self, connection: Connection, way: &Way) -> Result<(), Finding> {
        let Plan { limit, requests, .. } = self.plan;
        let is_member = self.examined.member.says.is_some();
        let (abilities, connection) =
            self.note(within(Check::Release, limit, probe(connection, way, is_member)).await?);
        let mut connection = match self.lease(connection, way).await {
            Ok(connection) => connection,
            Err(failed) => {
                self.add(failed);
                // The old connection may be in the middle of an answer.
                within(Check::Latency, limit, way.open()).await?
            }
        };
        let latency = latency::check(&mut connection, abilities, requests, limit);
        let finding = within(Check::Latency, limit, latency).await?;
        self.add(finding);
        Ok(())
    }

    /// Checks a lease, if the server serves leases. Returns the connection, which awaits no answer.
    async fn lease(&mut self, mut connection: Connection, way: &Way) -> Result<Connection, Finding> {
        let limit = self.plan.limit;
        let serves = within(Check::Lease, limit, serves_leases(&mut connection)).await;
        if !serves.map_err(|failed| self.of_leader(failed))? {
            let why = "this member does not lead: the leader is asked for the lease";
            self.add(Finding::skip(Check::Lease, why));
            return Ok(connection);
        }
        let lease = lease::check(&mut connection, way, self.leftovers, &mut self.examined.member);
        let lease = within(Check::Lease, limit + lease::LONGEST, lease).await;
        let finding = lease.map_err(|failed| self.of_leader(failed))?;
        self.add(finding);
        Ok(connection)
    }

    /// Replaces the remedy for a leader that does not answer: a leader that reports its state but serves no leases may
    /// be cut off from the other members. The other failures keep their own remedies.
    fn of_leader(&self, failed: Finding) -> Finding {
        match self.examined.member.leads() && failed.exit == Exit::SERVER_AWAY {
            true => failed.remedy(
                "see whether this leader reaches a majority of its cluster, without which it answers no request that needs the \
                 agreement of the members, and whether it is overloaded",
            ),
            false => failed,
        }
    }

    /// Judges the state that the server reported; `None` if it does not know `stats`.
    fn judge(&mut self, stats: Option<&Stats>) {
        let Some(stats) = stats else {
            let unknown = "the server does not know `stats`";
            self.add(Finding::warn(Check::Limits, unknown, "update the server to 2.1"));
            self.add(Finding::skip(Check::Cluster, unknown));
            return;
        };
        self.add(limits::judge(stats, self.plan.caps, self.examined.member.is_full));
        self.add(judge_member(self.kind, stats.cluster.as_deref()));
    }

    fn add(&mut self, finding: Finding) {
        self.examined.findings.push(finding);
    }

    /// Adds a finding, and returns the value that the next checks need.
    fn note<T>(&mut self, (finding, found): (Finding, T)) -> T {
        self.add(finding);
        found
    }
}

/// Runs a check within its time limit. A failure becomes the finding of the check.
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
