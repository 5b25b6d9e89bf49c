//! The orders for a cluster on standard input, and the choice of the next leader. Pure.

/// A line of standard input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Members,
    Leader,
    Lead(usize),
    Depose,
    Kill(usize),
    Stop(usize),
    Start(usize),
    Isolate(usize),
    Rejoin(usize),
}

const KNOWN: &str = "members, leader [N], depose, kill N, stop N, start N, isolate N, rejoin N";

impl Order {
    /// Parses a line; `None` if it is blank.
    pub(super) fn read(line: &str, members: usize) -> Result<Option<Self>, String> {
        let mut words = line.split_whitespace();
        let (Some(verb), member, None) = (words.next(), words.next(), words.next()) else {
            return match line.trim().is_empty() {
                true => Ok(None),
                false => Err(format!("{line:?} has too many words; the orders are {KNOWN}")),
            };
        };
        let numbered: fn(usize) -> Self = match (verb, member) {
            ("members", None) => return Ok(Some(Self::Members)),
            ("leader", None) => return Ok(Some(Self::Leader)),
            ("depose", None) => return Ok(Some(Self::Depose)),
            ("leader", Some(_)) => Self::Lead,
            ("kill", Some(_)) => Self::Kill,
            ("stop", Some(_)) => Self::Stop,
            ("start", Some(_)) => Self::Start,
            ("isolate", Some(_)) => Self::Isolate,
            ("rejoin", Some(_)) => Self::Rejoin,
            ("kill" | "stop" | "start" | "isolate" | "rejoin", None) => {
                return Err(format!("{verb} needs the number of a member, such as {verb} 1"));
            }
            _ => return Err(format!("{line:?} is unknown; the orders are {KNOWN}")),
        };
        let member = member.unwrap_or_default();
        match member.strip_prefix('n').unwrap_or(member).parse() {
            Ok(number) if number < members => Ok(Some(numbered(number))),
            _ => Err(format!(
                "there is no member {member:?}: write a number from 0 to {}",
                members.saturating_sub(1)
            )),
        }
    }
}

/// The members, and which of them can vote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Electorate(Vec<Voter>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Voter {
    is_running: bool,
    is_isolated: bool,
}

impl Electorate {
    /// Creates an electorate whose members all run and reach each other.
    pub(super) fn new(members: usize) -> Self {
        let voter = Voter {
            is_running: true,
            is_isolated: false,
        };
        Self(vec![voter; members])
    }

    pub(super) fn set_running(&mut self, member: usize, is_running: bool) {
        self.0
            .iter_mut()
            .skip(member)
            .take(1)
            .for_each(|voter| voter.is_running = is_running);
    }

    pub(super) fn set_isolated(&mut self, member: usize, is_isolated: bool) {
        self.0
            .iter_mut()
            .skip(member)
            .take(1)
            .for_each(|voter| voter.is_isolated = is_isolated);
    }

    /// Returns how the order `members` describes a member that does not lead.
    pub(super) fn role(&self, member: usize) -> &'static str {
        match self.0.get(member) {
            Some(voter) if voter.is_running && voter.is_isolated => "is isolated",
            Some(voter) if voter.is_running => "follows",
            _ => "is stopped",
        }
    }

    fn votes(&self, member: usize) -> bool {
        let voter = self.0.get(member);
        voter.is_some_and(|voter| voter.is_running && !voter.is_isolated)
    }

    /// Returns whether more than half of the members vote.
    pub(super) fn are_majority(&self) -> bool {
        let count = self.0.len();
        let voters = (0..count).filter(|member| self.votes(*member)).count();
        voters * 2 > count
    }

    /// Returns the member that is elected after `former` led: the next member that votes. `None` without a majority.
    pub(super) fn successor(&self, former: usize) -> Option<usize> {
        let count = self.0.len();
        let mut candidates = (1..=count).map(|step| (former + step) % count);
        self.are_majority()
            .then(|| candidates.find(|member| self.votes(*member)))
            .flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_read_by_number_and_by_name() {
        for (line, order) in [
            ("", None),
            ("  ", None),
            ("members", Some(Order::Members)),
            ("leader", Some(Order::Leader)),
            ("leader 2", Some(Order::Lead(2))),
            (" kill  n1 ", Some(Order::Kill(1))),
            ("stop 0", Some(Order::Stop(0))),
            ("start 0", Some(Order::Start(0))),
            ("isolate 1", Some(Order::Isolate(1))),
            ("rejoin 1", Some(Order::Rejoin(1))),
            ("depose", Some(Order::Depose)),
        ] {
            assert_eq!(Order::read(line, 3), Ok(order), "{line:?}");
        }
        for (line, said) in [
            ("kill", "such as kill 1"),
            ("kill 3", "a number from 0 to 2"),
            ("kill -1", "\"-1\""),
            ("reboot 1", "the orders are members"),
            ("kill 1 2", "too many words"),
            ("depose 1", "unknown"),
        ] {
            let refused = Order::read(line, 3).unwrap_err();
            assert!(refused.contains(said), "{line:?}: {refused}");
        }
    }

    #[test]
    fn the_next_member_is_elected_while_a_majority_votes() {
        let mut electorate = Electorate::new(3);
        electorate.set_isolated(2, true);
        assert_eq!((electorate.successor(2), electorate.successor(0)), (Some(0), Some(1)));
        electorate.set_running(0, false);
        assert_eq!(electorate.successor(0), None, "one of three");
        assert_eq!(
            [0, 1, 2].map(|member| electorate.role(member)),
            ["is stopped", "follows", "is isolated"]
        );
        electorate.set_running(2, false);
        electorate.set_isolated(2, false);
        electorate.set_running(0, true);
        assert_eq!(electorate.successor(2), Some(0));
        assert_eq!(electorate.role(2), "is stopped", "it was killed while it was isolated");
        let mut alone = Electorate::new(1);
        assert_eq!(alone.successor(0), Some(0));
        alone.set_running(0, false);
        assert_eq!(alone.successor(0), None);
    }
}
