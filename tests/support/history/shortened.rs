//! Selects the lines of a record that help to explain a violation. These are nearby lines about the same key, operation
//! or channel, and earlier lines about processes, servers and trouble.

use super::facts::Facts;
use super::record::{Kind, Name, What};

/// The maximum number of lines that are shown before the violation, including the line of the violation itself.
const BEFORE: usize = 14;
/// The maximum number of lines that are shown after the violation.
const AFTER: usize = 4;

/// What a violation is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    Key(Kind, Name),
    /// A process and the number of one of its operations.
    Operation(Name, u64),
    Channel(Name),
    Nothing,
}

/// Returns lines about `subject` before and after `line`, as JSON. The mark `>` precedes `line` itself.
pub fn around(facts: &Facts<'_>, subject: &Subject, line: usize) -> Vec<String> {
    let numbers = 0..facts.lines.len();
    let is_about = |number: &usize| is_about(facts, subject, &facts.lines[*number].what);
    let up_to = numbers.clone().take(line + 1).rev();
    let up_to = up_to.filter(|number| *number == line || is_for_all(&facts.lines[*number].what) || is_about(number));
    let mut shown: Vec<usize> = up_to.take(BEFORE).collect();
    shown.reverse();
    shown.extend(numbers.skip(line + 1).filter(is_about).take(AFTER));
    let shown = shown.into_iter();
    shown
        .map(|number| {
            let mark = if number == line { "> " } else { "  " };
            let text = serde_json::to_string(&facts.lines[number]).unwrap_or_else(|error| error.to_string());
            format!("{mark}{text}")
        })
        .collect()
}

fn is_about(facts: &Facts<'_>, subject: &Subject, what: &What) -> bool {
    match subject {
        Subject::Key(kind, key) => key_of(facts, what).is_some_and(|(of, name)| of == *kind && name == key),
        Subject::Operation(process, op) => match what {
            What::Invoke(invoke) => invoke.process == *process && invoke.op == *op,
            What::Return(end) => end.process == *process && end.op == *op,
            _ => false,
        },
        Subject::Channel(channel) => match what {
            What::Invoke(invoke) => invoke.channel.as_ref() == Some(channel),
            What::Received(received) => received.channel == *channel,
            What::Subscribed(_) | What::Unsubscribed(_) | What::Gap(_) => true,
            What::HalfOpenBegun(_) | What::HalfOpenEnded(_) => true,
            _ => false,
        },
        Subject::Nothing => false,
    }
}

/// Returns whether a line before a violation is shown even if the violation is about something else. These lines are
/// about processes, servers or trouble.
fn is_for_all(what: &What) -> bool {
    matches!(
        what,
        What::ProcessStarted(_)
            | What::ProcessEnded(_)
            | What::ProcessKilled(_)
            | What::ProcessFrozen(_)
            | What::ProcessThawed(_)
            | What::ServerStarted(_)
            | What::ServerEnded(_)
            | What::TroubleBegun(_)
            | What::TroubleEnded(_)
    )
}

/// Returns the kind and the name of the key that a line is about.
fn key_of<'a>(facts: &'a Facts<'_>, what: &'a What) -> Option<(Kind, &'a Name)> {
    if let Some(entry) = what.entry() {
        return Some((entry.kind, &entry.key));
    }
    let holder = |process: &Name, holder: u64| {
        let holder = facts.holders.of(process, holder)?;
        Some((holder.kind, &holder.key))
    };
    match what {
        What::Invoke(invoke) => match invoke.holder {
            Some(number) => holder(&invoke.process, number),
            None => Some((invoke.kind?, invoke.key.as_ref()?)),
        },
        What::Return(end) => {
            let operation = facts.operations.of(&end.process, end.op)?;
            Some((operation.kind?, operation.key.as_ref()?))
        }
        What::Acquired(acquired) => Some((acquired.kind, &acquired.key)),
        What::Use(belief) => holder(&belief.process, belief.holder),
        What::Lost(lost) => holder(&lost.process, lost.holder),
        What::LetGo(let_go) => holder(&let_go.process, let_go.holder?),
        _ => None,
    }
}
