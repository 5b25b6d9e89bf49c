//! The results as Markdown.

use std::fmt::Write;

use super::results::{Cell, Keys, LEAD_WORKERS, Results, Side, Spread};

/// Returns all tables, the conditions of the run, and the notes.
pub(crate) fn all(results: &Results) -> String {
    let mut text = conditions(results);
    for keys in [Keys::Own, Keys::One] {
        if !results.workers(keys).is_empty() {
            let _ = write!(text, "\n{}:\n\n{}", title(keys), table(results, keys));
        }
    }
    if let Some(lead) = lead(results) {
        let _ = write!(text, "\n{lead}");
    }
    text.push_str(&notes(results));
    text
}

/// Says when, on which machine, in how many rounds and for how long the results were measured.
pub(crate) fn conditions(results: &Results) -> String {
    let rounds = match results.rounds {
        1 => "one round".to_owned(),
        rounds => format!("medians of {rounds} rounds, the least and the most in brackets"),
    };
    format!(
        "Measured on {}: {}. Pairs a second, {rounds}; each round of a cell took {} s, or half as long with one key.\n",
        results.date, results.machine, results.seconds
    )
}

pub(crate) fn title(keys: Keys) -> &'static str {
    match keys {
        Keys::Own => "Each worker has a key of its own",
        Keys::One => "All workers want one key",
    }
}

/// Returns a table of all sides. Each cell has the median rate, and in brackets the lowest and the highest rate.
pub(crate) fn table(results: &Results, keys: Keys) -> String {
    let workers = results.workers(keys);
    let mut text = header(&["workers", "version"], &workers);
    for side in &results.sides {
        let cells = workers
            .iter()
            .map(|workers| with_spread(results.cell(&side.name, keys, *workers)));
        row(&mut text, &[name(side), side.version.clone()], cells);
    }
    text
}

/// Returns a table of the median rates of all sides, with a key for each worker.
pub(crate) fn medians(results: &Results) -> String {
    let workers = results.workers(Keys::Own);
    let mut text = format!("Medians, measured on {}: {}.\n\n", results.date, results.machine);
    text += &header(&["pairs a second, workers:"], &workers);
    for side in &results.sides {
        let cells = workers
            .iter()
            .map(|workers| with_median(results.cell(&side.name, Keys::Own, *workers)));
        row(&mut text, &[name(side)], cells);
    }
    text
}

/// Returns a text with [`Results::lead`], or `None` if this client or the Python client was not measured.
pub(crate) fn lead(results: &Results) -> Option<String> {
    let ratio = results.lead()?;
    Some(format!(
        "{LEAD_WORKERS} tasks of this client made {ratio:.1} times as many pairs as {LEAD_WORKERS} tasks of the Python client 2.1.1. Each task had a key of its own.\n"
    ))
}

/// Returns a paragraph for each side that was left out, and for each cell with a failed round. Each paragraph gives the
/// reason.
pub(crate) fn notes(results: &Results) -> String {
    let mut text = String::new();
    for left_out in &results.left_out {
        let _ = write!(text, "\nLeft out: {}. {}.\n", left_out.label, left_out.reason);
    }
    for cell in results.cells.iter().filter(|cell| !cell.failures.is_empty()) {
        let failure = cell.failures.first().cloned();
        let _ = write!(
            text,
            "\nFailed in {} of {} rounds: {}, {} key, {} workers. {}.\n",
            cell.failures.len(),
            cell.failures.len() + cell.rates.len(),
            cell.side,
            cell.keys,
            number(cell.workers),
            failure.unwrap_or_default()
        );
    }
    text
}

/// Lists the sides that were left out, and the sides that failed in a round with a key for each worker. Returns `None`
/// if there are no such sides.
pub(crate) fn missing(results: &Results) -> Option<String> {
    let left_out = results.left_out.iter().map(|side| side.label.as_str()).collect();
    let has_failed = |side: &&Side| {
        let mut cells = results.cells.iter();
        cells.any(|cell| cell.side == side.name && cell.keys == Keys::Own && !cell.failures.is_empty())
    };
    let failed = results.sides.iter().filter(has_failed);
    let failed = failed.map(|side| side.label.as_str()).collect();
    let lists: Vec<String> = [("Left out", left_out), ("Failed in some rounds", failed)]
        .into_iter()
        .filter(|(_, sides): &(&str, Vec<&str>)| !sides.is_empty())
        .map(|(what, sides)| format!("{what}: {}.", sides.join("; ")))
        .collect();
    (!lists.is_empty()).then(|| lists.join(" "))
}

/// Formats pairs a second, rounded to a whole number with at most three significant digits.
pub(crate) fn rate(pairs: f64) -> String {
    let digits = pairs.max(1.0).log10().floor() as i32 + 1;
    let unit = 10_f64.powi((digits - 3).max(0));
    number(((pairs / unit).round() * unit) as usize)
}

/// Formats a number with commas between thousands.
pub(crate) fn number(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn header(titles: &[&str], workers: &[usize]) -> String {
    let mut text = String::new();
    row(
        &mut text,
        &titles.iter().map(|title| (*title).to_owned()).collect::<Vec<_>>(),
        workers.iter().map(|workers| number(*workers)),
    );
    let lines = titles.iter().map(|_| " --- |").chain(workers.iter().map(|_| " ---: |"));
    let _ = writeln!(text, "|{}", lines.collect::<String>());
    text
}

fn row(text: &mut String, titles: &[String], cells: impl Iterator<Item = String>) {
    let cells: Vec<String> = titles.iter().cloned().chain(cells).collect();
    let _ = writeln!(text, "| {} |", cells.join(" | "));
}

fn name(side: &Side) -> String {
    match side.is_another_system {
        true => format!("{} (another system)", side.label),
        false => side.label.clone(),
    }
}

fn with_median(cell: Option<&Cell>) -> String {
    cell_text(cell, |_| None)
}

fn with_spread(cell: Option<&Cell>) -> String {
    cell_text(cell, |spread| {
        Some(format!("{} to {}", rate(spread.least), rate(spread.most)))
    })
}

/// Returns the median rate. If several rounds succeeded, adds the text that `range` returns, in brackets. If rounds
/// failed, adds the result of [`rounds`].
fn cell_text(cell: Option<&Cell>, range: fn(Spread) -> Option<String>) -> String {
    let Some((cell, spread)) = cell.and_then(|cell| Some((cell, cell.spread()?))) else {
        return "failed".to_owned();
    };
    let range = match cell.rates.len() {
        1 => None,
        _ => range(spread),
    };
    let median = rate(spread.median);
    let brackets: Vec<String> = [range, rounds(cell)].into_iter().flatten().collect();
    match brackets.is_empty() {
        true => median,
        false => format!("{median} ({})", brackets.join("; ")),
    }
}

/// Returns the number of successful rounds and the number of all rounds, or `None` if no round failed.
fn rounds(cell: &Cell) -> Option<String> {
    let (measured, failed) = (cell.rates.len(), cell.failures.len());
    (failed > 0).then(|| format!("{measured} of {} rounds", measured + failed))
}
