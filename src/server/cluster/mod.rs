//! Several servers that play a cluster: see [`Cluster`].

mod builder;
mod port;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

pub use self::builder::ClusterBuilder;
use self::port::Port;
use super::control::Control;
use super::event::Event;
use super::listener::{Served, Server};
use super::options::ServerOptions;
use super::state::State;
use crate::error::{Error, Result};
use crate::stats::Stats;

/// For tests: servers that play the members of one cluster, in this process, on one state. Who leads is
/// not elected but [said](Self::move_leader), and so is what goes wrong. Dropping it ends all members at once.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use dflockd_client::protocol::functions::{Wire, acquire, release};
/// use dflockd_client::server::{Cluster, Server};
/// use dflockd_client::{ErrorKind, Key, WaitSecs};
///
/// let cluster = Cluster::builder().options(Server::builder().max_locks(10_000)).start().await?;
/// let [first, second, _] = &cluster.addresses()[..] else { unreachable!("there are three") };
/// let mut first = Wire::new(tokio::net::TcpStream::connect(first).await?);
/// let mut second = Wire::new(tokio::net::TcpStream::connect(second).await?);
///
/// let key = Key::new("orders/42")?;
/// let grant = acquire(&mut first, &key, WaitSecs::TRY, None).await?;
/// cluster.move_leader(1)?;
/// assert!(release(&mut first, &key, &grant.token).await.is_err_and(|error| error.kind() == ErrorKind::NotLeader));
/// release(&mut second, &key, &grant.token).await?;
/// # Ok(())
/// # }
/// ```
///
/// # Who answers what
///
/// The leader answers everything. The others answer `ping`, `auth`, `stats` and `stable-ref`. Whatever could change the
/// state, or must have seen all changes (`l`, `e`, `w`, `r`, `n`, those of semaphores, `barrier`), they answer with
/// `error_not_leader` and the leader's address, without one while no member leads.
///
/// `stats` tells of the one state, and of the connections of the member that is asked. It adds a `cluster` object
/// ([`ClusterStats`](crate::ClusterStats)), in which members are called `n0`, `n1` and so on. `commit_index` and `last_log_index` count
/// what members had to agree on: each request of the leader's is an entry, even a renewal of a token that it does not know; a request
/// that ran out of time is one more, and so is the end of a connection to the leader, and each new leader. `barrier` is answered at
/// once, as there is one state only. Signals are not known, as in all releases from 2.0 on.
///
/// Connections may be idle for as long as they like, unless
/// [`closes_idle_connections`](ClusterBuilder::closes_idle_connections) says otherwise.
///
/// # When the leader changes
///
/// Connections stay open, and go on owning what they have: if their member leads again, their end releases it. While it does not lead,
/// their end releases nothing, and what they had is no other connection's of that process. Requests that block there hear nothing but a grant,
/// or `timeout` without being cancelled. Leases run on, and their tokens are good for renew and release with the new leader. Places stay in
/// their queues until it is their turn, and then for a TTL. Fences keep growing.
///
/// While no member leads the state rests: no lease is swept, no orphan given up. But time goes on: a lease whose TTL is over
/// ends as soon as a member leads.
///
/// A leader that is [stopped](Self::stop) is one that changes, except that its connections end. One that is
/// [shut down](Self::shutdown) leads until its clients are gone. No majority is asked for: with two of three members stopped, a leader
/// that is left goes on. A test that wants it otherwise says [`depose`](Self::depose), or [`isolate`](Self::isolate).
///
/// # The end of a connection
///
/// When the leader sees a connection end, it gives up the place at which a request blocks there. What else the connection owns, leases
/// and places, is released at once, or kept for the [`orphan_ttl`](super::ServerBuilder::orphan_ttl), whether or not the connection
/// presented a ref. (A renewal makes the connection that sent it the owner.) Without
/// [`auto_release_on_disconnect`](super::ServerBuilder::auto_release_on_disconnect) leases run on until their TTL.
///
/// # Refs
///
/// `stable-ref` is taken once a connection, by any member. A connection that has presented one and asks for a key (`l`, `sl`, `e`
/// or `se`, with the same limit) takes back what its session has of that key, if the leader has seen the former connection end,
/// or if that led to another member, or to this one before it was started again:
///
/// - a lease first, a semaphore's oldest: the same token. Its time begins anew, with the TTL that is asked for now;
/// - else the first place in the queue. The grant will have the new TTL. A try (timeout 0) takes it back, too, and leaves it where it
///   is. So does any request that took a place back and ran out of time: it is told `timeout`, and the place stays. A further `w`
///   on the connection, with timeout 0 if need be, ends it.
///
/// What a connection to the same process has is not taken, even if that connection has ended
/// [unnoticed](Self::overlooks_ends): a wait stands behind its own ghost.
///
/// `w` finds what the session has of a key, whether or not there was an `e` on the connection, and answers a grant again and again until
/// it is released or expires. It tells the seconds that are left of it, rounded down, and the
/// [default TTL](super::ServerBuilder::default_lease_ttl) where that is none.
pub struct Cluster {
    state: Arc<Mutex<State>>,
    options: ServerOptions,
    members: Vec<Member>,
}

struct Member {
    port: Port,
    running: Mutex<Option<Server>>,
}

impl Member {
    /// The server, for a moment: never kept across an await.
    fn running(&self) -> MutexGuard<'_, Option<Server>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cluster {
    /// Begins to describe a cluster.
    pub fn builder() -> ClusterBuilder {
        ClusterBuilder::default()
    }

    /// Where the members listen, each at the same address for as long as the cluster exists.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        let members = self.members.iter();
        members.map(|member| member.port.address().to_string()).collect()
    }

    /// The one state, in the hands of a test.
    pub(crate) fn control(&self) -> Control {
        Control::of(&self.state)
    }

    /// Which member leads, from 0. None after [`depose`](Self::depose), and when the leader was stopped.
    #[must_use]
    pub fn leader(&self) -> Option<usize> {
        self.state().leader()
    }

    /// Makes a member the leader, at once. If it is already, nothing happens.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if there is no such member, or it is stopped.
    pub fn move_leader(&self, to: usize) -> Result<()> {
        let running = self.member(to)?.running();
        if running.is_none() {
            return Err(Error::invalid("member", to, "it is stopped; start it before it leads"));
        }
        let mut state = self.state();
        if state.membership().is_some_and(|members| !members.reaches(to)) {
            return Err(Error::invalid(
                "member",
                to,
                "it is isolated; let it rejoin before it leads",
            ));
        }
        state.lead(to, Instant::now());
        Ok(())
    }

    /// From now on nobody leads. Whoever asks is told so, without an address.
    pub fn depose(&self) {
        self.state().depose();
    }

    /// Ends a member as if it were killed: its connections end, without an answer to what they wait for, and new ones are
    /// refused. (A request that it is at in that very moment may still be told that nobody leads.) If it led, nobody does
    /// until [`move_leader`](Self::move_leader). Nothing happens if it is stopped already.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if there is no such member.
    ///
    /// # Cancel safety
    ///
    /// The member ends even if this is dropped; when it returns, nothing of the member is left.
    pub async fn stop(&self, member: usize) -> Result<()> {
        let server = {
            let mut running = self.member(member)?.running();
            self.state().crash(member);
            running.take()
        };
        if let Some(server) = server {
            server.stop().await;
        }
        Ok(())
    }

    /// Shuts a member down in order, as SIGTERM does. It takes no new connections. Requests that block there are answered with
    /// `error`, and their places given up; further requests are answered with `error_draining`, and their connections closed. If it
    /// leads, it goes on leading until its connections have ended, for the
    /// [shutdown timeout](super::ServerBuilder::shutdown_timeout) at most: the end of each gives up what the connection owns, as
    /// always. Then no member leads until [`move_leader`](Self::move_leader). Nothing happens if it is stopped already.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if there is no such member.
    ///
    /// # Cancel safety
    ///
    /// The member ends at once if this is dropped, and leads no more as soon as another is told to.
    pub async fn shutdown(&self, member: usize) -> Result<()> {
        let server = self.member(member)?.running().take();
        if let Some(server) = server {
            server.drain().await;
            server.stop().await;
            self.state().crash(member);
        }
        Ok(())
    }

    /// Starts a stopped member again, at the same address. It does not lead. Nothing happens if it runs.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if there is no such member, and without a runtime,
    /// [`ErrorKind::Connect`](crate::ErrorKind::Connect) if its address cannot be bound. The member stays stopped then.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is started if it is dropped.
    pub async fn start(&self, member: usize) -> Result<()> {
        let stopped = self.member(member)?;
        if stopped.running().is_some() {
            return Ok(());
        }
        let listening = stopped.port.listen().await?;
        let mut running = stopped.running();
        if running.is_none() {
            if let Some(members) = self.state().membership() {
                members.begin_process(member);
            }
            *running = Some(listening(self.served_by(member)));
        }
        Ok(())
    }

    fn served_by(&self, member: usize) -> Served {
        Served {
            options: self.options.clone(),
            state: Arc::clone(&self.state),
            member,
        }
    }

    /// What has happened since the start, in order, whoever led, if the [options](ClusterBuilder::options) say
    /// `record_events`.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.state().events().to_vec()
    }

    /// The one state, with the connections to all members.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.state().stats(Instant::now())
    }

    /// Misbehaviour: all members that do not lead name this address, whoever leads, and even if nobody does. `None` for the
    /// truth again.
    pub fn redirects_to(&self, address: Option<&str>) {
        let mut state = self.state();
        for member in 0..self.members.len() {
            if let Some(membership) = state.membership() {
                membership.redirect(member, address.map(Box::from));
            }
        }
    }

    /// Misbehaviour: as [`redirects_to`](Self::redirects_to), of one member.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if there is no such member.
    pub fn member_redirects_to(&self, member: usize, address: Option<&str>) -> Result<()> {
        self.member(member)?;
        if let Some(membership) = self.state().membership() {
            membership.redirect(member, address.map(Box::from));
        }
        Ok(())
    }

    /// Cuts a member off from the others. If it led, no other member leads until [`move_leader`](Self::move_leader), and it goes on
    /// believing that it does: what it would have to agree on with the others (`n`, `r`, `e`, …) it answers with `error`, when the
    /// [read timeout](super::ServerBuilder::read_timeout) is over. Requests that block there hear of no grant.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if there is no such member.
    pub fn isolate(&self, member: usize) -> Result<()> {
        self.member(member)?;
        self.state().isolate(member);
        Ok(())
    }

    /// Lets an isolated member see the others again. It follows then. What waits for them there is answered with
    /// `error_not_leader`, and requests that block hear of grants that were made meanwhile.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if there is no such member.
    pub fn rejoin(&self, member: usize) -> Result<()> {
        self.member(member)?;
        self.state().rejoin(member);
        Ok(())
    }

    /// Lets leadership be lost while the next request of the leader's is under way: it is carried out, and answered with
    /// `error_not_leader` all the same. Then `next` leads, or no member does.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if there is no such member.
    pub fn move_leader_in_flight(&self, next: Option<usize>) -> Result<()> {
        if let Some(next) = next {
            self.member(next)?;
        }
        if let Some(members) = self.state().membership() {
            members.trouble.fall_in_flight(next);
        }
        Ok(())
    }

    /// Misbehaviour: no member notices any more that a connection has ended. The connection keeps what it has, and its blocked
    /// request its place until its time is over. Told otherwise, members notice all that they have overlooked.
    pub fn overlooks_ends(&self, overlooks: bool) {
        self.state().overlook_ends(overlooks, Instant::now());
    }

    /// Misbehaviour: acquires and enqueues are answered with `error`, as if the number of a fence could not be written down.
    pub fn fails_to_persist(&self, fails: bool) {
        if let Some(members) = self.state().membership() {
            members.trouble.fail_to_persist(fails);
        }
    }

    /// Misbehaviour: the next leader knows no refs and no connections. All places are given up, and leases run on until their TTL,
    /// their tokens good.
    pub fn forgets_refs(&self, forgets: bool) {
        if let Some(membership) = self.state().membership() {
            membership.trouble.forget_refs(forgets);
        }
    }

    /// Misbehaviour: whoever leads next does not know what is held. All leases end, recorded as
    /// [`Forgotten`](super::EventKind::Forgotten); their tokens hold nothing, and the keys go to those that wait, or are
    /// free.
    pub fn forgets_tokens(&self, forgets: bool) {
        if let Some(membership) = self.state().membership() {
            membership.trouble.forget_tokens(forgets);
        }
    }

    fn member(&self, member: usize) -> Result<&Member> {
        let members = self.members.len();
        let found = self.members.get(member);
        found.ok_or_else(|| Error::invalid("member", member, &format!("there are {members}, counted from 0")))
    }

    /// The state, for a moment: never kept across an await.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("addresses", &self.addresses())
            .field("leader", &self.leader())
            .finish_non_exhaustive()
    }
}
