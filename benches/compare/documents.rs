//! Writes the results of the comparison: as JSON, as tables, as plots, and as parts of two documents.

use std::error::Error;
use std::fs;
use std::path::Path;

use super::plot;
use super::results::{Keys, Results};
use super::table;

/// The part of a document that this program rewrites is between these two comments.
const BEGIN: &str = "<!-- written by benches/compare: begin -->\n";
const END: &str = "<!-- written by benches/compare: end -->\n";

/// Writes `results.json` (the text `json`), `tables.md` and the plots into the folder.
pub(crate) fn write_results(results: &Results, json: &str, folder: &Path) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join("results.json"), json)?;
    fs::write(folder.join("tables.md"), table::all(results))?;
    for keys in [Keys::Own, Keys::One] {
        plot::draw(results, keys, &folder.join(file(keys)))?;
    }
    Ok(())
}

/// Rewrites the parts of `docs/benchmarks.md` and `README.md`, which are below `root`.
pub(crate) fn rewrite(results: &Results, root: &Path) -> Result<(), Box<dyn Error>> {
    for (document, part) in [
        ("docs/benchmarks.md", benchmarks(results)),
        ("README.md", readme(results)),
    ] {
        let path = root.join(document);
        let text = fs::read_to_string(&path)?;
        let text = replace(&text, &part).ok_or_else(|| format!("{document} lacks the comments {BEGIN}and {END}"))?;
        fs::write(&path, text)?;
    }
    Ok(())
}

/// Returns the text with `part` between the two comments, or `None` if a comment is missing.
pub(crate) fn replace(text: &str, part: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{part}\n{END}{after}"))
}

fn benchmarks(results: &Results) -> String {
    let mut text = table::conditions(results);
    for keys in [Keys::Own, Keys::One] {
        if results.workers(keys).is_empty() {
            continue;
        }
        let title = table::title(keys);
        text.push_str(&format!("\n{title}:\n\n{}", table::table(results, keys)));
        text.push_str(&format!("\n![{title}](benchmarks/{})\n", file(keys)));
    }
    if let Some(lead) = table::lead(results) {
        text.push_str(&format!("\n{lead}"));
    }
    text.push_str(&table::notes(results));
    text
}

fn readme(results: &Results) -> String {
    let mut text = format!(
        "{}\n![Pairs a second over the number of workers](docs/benchmarks/{})\n",
        table::medians(results),
        file(Keys::Own)
    );
    if let Some(missing) = table::missing(results) {
        text.push_str(&format!(
            "\n{missing} The reasons are in [`docs/benchmarks.md`](docs/benchmarks.md#beside-other-clients-and-systems).\n"
        ));
    }
    text
}

fn file(keys: Keys) -> String {
    format!("{keys}.svg")
}
