//! Several members in one process, controlled by lines on standard input.

use std::io::{BufRead, Read};
use std::net::SocketAddr;

use dflockd_client::Error;
use dflockd_client::server::{Cluster, ServerBuilder};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::not_started;
use super::orders::{Electorate, Order};
use crate::args::ServeArguments;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;
use crate::process::{Signals, stdin_may_be_read};
use crate::tell;

pub(super) async fn serve(
    of: &ServeArguments,
    members: u16,
    each: ServerBuilder,
    signals: &mut Signals,
) -> Result<Exit, Failure> {
    let cluster = start(of, members, each).await?;
    let mut controlled = Controlled::new(cluster);
    output::line(format_args!("listening on {}", controlled.addresses().join("+")))?;
    controlled.tell_members()?;
    let mut lines = lines_of_stdin();
    loop {
        let line = tokio::select! {
            biased;
            _ = signals.ended() => break,
            line = lines.recv() => line,
        };
        let Some(line) = line else {
            // Standard input has ended, so only a signal can end the server now.
            signals.ended().await;
            break;
        };
        let obeyed = tokio::select! {
            biased;
            exit = signals.ended() => return Ok(exit),
            obeyed = controlled.obey(&line) => obeyed,
        };
        obeyed?;
    }
    tell::warn("shutting down; a second signal ends this process at once");
    tokio::select! {
        biased;
        exit = signals.ended() => Ok(exit),
        stopped = controlled.shut_down() => stopped.map(|()| Exit::SUCCESS),
    }
}

/// Starts the members on consecutive ports from the given one on, or on free ports.
async fn start(of: &ServeArguments, members: u16, each: ServerBuilder) -> Result<Cluster, Failure> {
    let builder = Cluster::builder().members(members.into()).options(each);
    if of.port == 0 {
        return builder.start().await.map_err(not_started);
    }
    let ip = of.ip().ok_or_else(|| {
        Failure::new(
            Exit::USAGE,
            format!("--host {}: a cluster needs an IP address", of.host),
        )
        .remedy("--host 127.0.0.1")
    })?;
    let last = of.port.checked_add(members - 1).ok_or_else(|| {
        Failure::new(
            Exit::USAGE,
            format!("--port {}: there are no {members} ports from this one on", of.port),
        )
        .remedy("a lower --port, or 0 for any that are free")
    })?;
    let addresses = (of.port..=last).map(|port| SocketAddr::new(ip, port));
    builder
        .start_on(addresses, TcpListener::bind)
        .await
        .map_err(not_started)
}

/// A cluster that is controlled by orders, and which of its members can vote.
struct Controlled {
    cluster: Cluster,
    voters: Electorate,
    /// The last leader.
    former: usize,
}

impl Controlled {
    fn new(cluster: Cluster) -> Self {
        let voters = Electorate::new(cluster.addresses().len());
        Self {
            cluster,
            voters,
            former: 0,
        }
    }

    fn addresses(&self) -> Vec<String> {
        self.cluster.addresses()
    }

    /// Carries out the order in a line. Prints an error if there is no such order.
    async fn obey(&mut self, line: &str) -> Result<(), Failure> {
        match Order::read(line, self.addresses().len()) {
            Ok(None) => Ok(()),
            Err(refusal) => {
                tell::complain(&refusal);
                Ok(())
            }
            Ok(Some(Order::Members)) => self.tell_members(),
            Ok(Some(Order::Lead(_))) if !self.voters.are_majority() => {
                tell::complain("no member can lead: fewer than a majority run and reach each other");
                self.tell_leader()
            }
            Ok(Some(order)) => {
                if let Err(error) = self.carry_out(order).await {
                    tell::complain(&error.to_string());
                }
                self.tell_leader()
            }
        }
    }

    async fn carry_out(&mut self, order: Order) -> Result<(), Error> {
        self.former = self.cluster.leader().unwrap_or(self.former);
        match order {
            Order::Members | Order::Leader => return Ok(()),
            Order::Lead(member) => return self.cluster.move_leader(member),
            Order::Depose => {
                self.cluster.depose();
                return Ok(());
            }
            Order::Kill(member) => {
                self.voters.set_running(member, false);
                self.cluster.stop(member).await?;
            }
            Order::Stop(member) => {
                self.voters.set_running(member, false);
                self.cluster.shutdown(member).await?;
            }
            Order::Isolate(member) => {
                self.voters.set_isolated(member, true);
                self.cluster.isolate(member)?;
            }
            Order::Start(member) => {
                self.cluster.start(member).await?;
                self.voters.set_running(member, true);
            }
            Order::Rejoin(member) => {
                self.cluster.rejoin(member)?;
                self.voters.set_isolated(member, false);
            }
        }
        self.elect()
    }

    /// Elects the next member if no member leads. A leader without a majority steps down.
    fn elect(&self) -> Result<(), Error> {
        match (self.cluster.leader(), self.voters.successor(self.former)) {
            (None, Some(next)) => self.cluster.move_leader(next),
            (Some(_), None) => {
                self.cluster.depose();
                Ok(())
            }
            (Some(_), Some(_)) | (None, None) => Ok(()),
        }
    }

    fn tell_leader(&self) -> Result<(), Failure> {
        match self.cluster.leader() {
            Some(leader) => output::line(format_args!(
                "n{leader} leads at {}",
                self.addresses().get(leader).map_or("?", String::as_str)
            )),
            None => output::line("no member leads"),
        }
    }

    fn tell_members(&self) -> Result<(), Failure> {
        let leader = self.cluster.leader();
        for (number, address) in self.addresses().iter().enumerate() {
            let role = match leader == Some(number) {
                true => "leads",
                false => self.voters.role(number),
            };
            output::line(format_args!("n{number} {address} {role}"))?;
        }
        Ok(())
    }

    /// Shuts the members down, the leader last.
    async fn shut_down(&self) -> Result<(), Failure> {
        let leader = self.cluster.leader();
        let members = 0..self.addresses().len();
        for member in members.filter(|member| Some(*member) != leader).chain(leader) {
            self.cluster.shutdown(member).await?;
        }
        Ok(())
    }
}

/// The length of the longest line that can be an order, in bytes, including its line break.
const LONGEST_LINE: usize = 256;

/// Reads a line. A line longer than `LONGEST_LINE` is cut and ends with `…`, so that it matches no order. A line that
/// is not UTF-8 matches no order either. After such a line, the next one can be read. Returns `None` at the end of the
/// input.
fn next_line(input: &mut impl BufRead) -> std::io::Result<Option<String>> {
    let mut line = Vec::new();
    let kept = input.by_ref().take(LONGEST_LINE as u64).read_until(b'\n', &mut line)?;
    if kept == 0 {
        return Ok(None);
    }
    let is_cut = kept == LONGEST_LINE && line.last() != Some(&b'\n');
    let mut line = String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_owned();
    if is_cut {
        input.skip_until(b'\n')?;
        line.push('…');
    }
    Ok(Some(line))
}

/// Returns the lines of standard input. The channel closes when standard input ends, or if the terminal would stop
/// this process for reading.
fn lines_of_stdin() -> mpsc::Receiver<String> {
    let (tell, told) = mpsc::channel(1);
    if stdin_may_be_read() {
        std::thread::spawn(move || {
            let mut input = std::io::stdin().lock();
            while let Ok(Some(line)) = next_line(&mut input) {
                if tell.blocking_send(line).is_err() {
                    return;
                }
            }
        });
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_no_text_or_too_long_does_not_end_the_orders() {
        let long = "x".repeat(100_000);
        let text = [
            b"\xff\xfe\nleader 1\r\n\n".as_slice(),
            long.as_bytes(),
            b"\nmembers\nkill 1",
            " ".repeat(250).as_bytes(),
            b"2\nkill 1",
        ]
        .concat();
        // The buffer is small, so that a line arrives in several parts.
        let mut input = std::io::BufReader::with_capacity(7, text.as_slice());
        let mut lines = Vec::new();
        while let Some(line) = next_line(&mut input).unwrap() {
            lines.push(line);
        }
        let long = format!("{}…", &long[..256]);
        let cut = format!("kill 1{}…", " ".repeat(250));
        assert_eq!(
            lines,
            ["\u{fffd}\u{fffd}", "leader 1", "", &long, "members", &cut, "kill 1"]
        );
        assert!(Order::read(&cut, 3).is_err());
    }

    /// Fails at every other read, as a read does that a signal interrupts.
    struct Interrupted<R>(R, bool);

    impl<R: std::io::Read> std::io::Read for Interrupted<R> {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            self.1 = !self.1;
            match self.1 {
                true => Err(std::io::ErrorKind::Interrupted.into()),
                false => self.0.read(into),
            }
        }
    }

    #[test]
    fn reads_that_are_interrupted_do_not_end_the_orders() {
        let text = format!("{}\nkill 1\n", "x".repeat(1_000));
        let mut input = std::io::BufReader::with_capacity(7, Interrupted(text.as_bytes(), false));
        assert!(next_line(&mut input).unwrap().unwrap().ends_with("x…"));
        assert_eq!(next_line(&mut input).unwrap().as_deref(), Some("kill 1"));
        assert_eq!(next_line(&mut input).unwrap(), None);
    }
}
