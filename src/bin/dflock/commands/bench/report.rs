//! The report of a benchmark.

use serde::Serialize;
use serde_json::{Map, Value};

use super::distribution::Summary;
use super::plot::{Canvas, Curve};
use crate::failure::Failure;
use crate::{output, tell};

/// The results of one benchmark.
pub(super) struct Report {
    name: &'static str,
    title: String,
    figures: Map<String, Value>,
    lines: Vec<String>,
    curves: Vec<Curve>,
}

impl Report {
    pub(super) fn new(name: &'static str, title: impl Into<String>) -> Self {
        Self {
            name,
            title: title.into(),
            figures: Map::new(),
            lines: Vec::new(),
            curves: Vec::new(),
        }
    }

    /// Adds a figure to the JSON object.
    pub(super) fn figure(&mut self, name: &str, value: impl Serialize) {
        // A value that JSON cannot represent, such as an infinite number, becomes null.
        let value = serde_json::to_value(value).unwrap_or(Value::Null);
        self.figures.insert(name.to_owned(), value);
    }

    /// Adds a line of text for people.
    pub(super) fn line(&mut self, line: impl Into<String>) {
        self.lines.push(line.into());
    }

    /// Adds a curve to the picture.
    pub(super) fn curve(&mut self, curve: Curve) {
        self.curves.push(curve);
    }

    /// Prints the report and draws the picture. `is_partial` says that the measuring ended early.
    pub(super) fn tell(mut self, as_json: bool, canvas: Option<Canvas>, is_partial: bool) -> Result<(), Failure> {
        if is_partial {
            tell::warn("the measuring ended early: the figures cover what was measured until then");
        }
        match as_json {
            true => {
                let mut object = Map::new();
                object.insert("bench".to_owned(), self.name.into());
                object.insert("partial".to_owned(), is_partial.into());
                object.append(&mut self.figures);
                output::json(&object)?;
            }
            false => {
                for line in &self.lines {
                    output::line(line)?;
                }
            }
        }
        match canvas {
            Some(canvas) => canvas.draw(&self.title, &self.curves),
            None => Ok(()),
        }
    }
}

/// Returns a summary of times as one line.
pub(super) fn times(times: &Summary) -> String {
    format!(
        "p50 {}, p90 {}, p99 {}, p99.9 {}, longest {}",
        human(times.p50_us),
        human(times.p90_us),
        human(times.p99_us),
        human(times.p999_us),
        human(times.max_us)
    )
}

/// Returns microseconds as text in a suitable unit.
pub(super) fn human(micros: f64) -> String {
    match micros {
        ..1e3 => format!("{micros:.0} us"),
        ..1e6 => format!("{:.2} ms", micros / 1e3),
        _ => format!("{:.2} s", micros / 1e6),
    }
}

/// Rounds a figure to this number of decimal digits.
pub(super) fn rounded(value: f64, digits: i32) -> f64 {
    let factor = 10_f64.powi(digits);
    (value * factor).round() / factor
}

/// Returns the total divided by the count, or 0 if the count is 0.
pub(super) fn per(total: f64, count: u64) -> f64 {
    match count {
        0 => 0.0,
        count => total / count as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit_that_fits() {
        assert_eq!([7.4, 1_234.0, 2.5e6].map(human), ["7 us", "1.23 ms", "2.50 s"]);
        assert_eq!((rounded(1.2345, 2), per(6.0, 3), per(6.0, 0)), (1.23, 2.0, 0.0));
    }
}
