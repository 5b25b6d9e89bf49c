//! Draws distributions of times as a picture.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use plotters::prelude::*;

use super::distribution::Distribution;
use crate::exit::Exit;
use crate::failure::Failure;

/// A distribution with its name in the picture.
#[derive(Clone, Debug)]
pub(super) struct Curve {
    pub(super) name: String,
    pub(super) times: Distribution,
}

const SIZE: (u32, u32) = (960, 480);

/// Colours that colour-blind readers can tell apart (Okabe and Ito).
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];

/// The file of a picture. It is opened before the measuring, so that the benchmark fails before it measures if the
/// file cannot be written.
pub(super) struct Canvas {
    path: PathBuf,
    file: File,
    /// Whether this created the file and has drawn nothing yet.
    is_empty: bool,
}

impl Canvas {
    /// Opens a file, and keeps its content until [`draw`](Self::draw).
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let (file, is_empty) = match File::create_new(path) {
            Ok(file) => (file, true),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                // A symbolic link to a file that does not exist yet is followed.
                let is_new = !path.exists();
                let file = OpenOptions::new().write(true).create(true).truncate(false).open(path);
                (file.map_err(|error| unwritten(path, &error))?, is_new)
            }
            Err(error) => return Err(unwritten(path, &error)),
        };
        Ok(Self {
            path: path.to_owned(),
            file,
            is_empty,
        })
    }

    /// Draws one line for each distribution: the percentile to the right, with one more nine at each step, and the
    /// time in microseconds upwards. Empty distributions are left out.
    pub(super) fn draw(mut self, title: &str, curves: &[Curve]) -> Result<(), Failure> {
        let text = svg(title, curves).map_err(|error| Failure::new(Exit::SOFTWARE, error))?;
        // This fails for pipes and terminals, which have no length.
        drop(self.file.set_len(0));
        let written = self.file.write_all(text.as_bytes());
        written.map_err(|error| unwritten(&self.path, &error))?;
        self.is_empty = false;
        Ok(())
    }
}

impl Drop for Canvas {
    fn drop(&mut self) {
        if self.is_empty {
            // If the path is a symbolic link, this removes the file to which it leads, and keeps the link.
            drop(std::fs::canonicalize(&self.path).and_then(std::fs::remove_file));
        }
    }
}

fn unwritten(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(Exit::IO, format!("{} cannot be written: {error}", path.display()))
}

fn svg(title: &str, curves: &[Curve]) -> Result<String, String> {
    let mut text = String::new();
    paint(title, curves, &mut text).map_err(|error| error.to_string())?;
    Ok(text)
}

fn paint(title: &str, curves: &[Curve], text: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let lines: Vec<(&str, Vec<(f64, f64)>)> = curves
        .iter()
        .filter(|curve| curve.times.count() > 0)
        .map(|curve| (curve.name.as_str(), curve.times.curve()))
        .collect();
    let points = || lines.iter().flat_map(|(_, line)| line);
    let furthest = points().map(|point| point.0).fold(100.0, f64::max);
    let least = points().map(|point| point.1).fold(f64::INFINITY, f64::min);
    let most = points().map(|point| point.1).fold(1.0, f64::max);

    let area = SVGBackend::with_string(text, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 20))
        .margin(14)
        .x_label_area_size(44)
        .y_label_area_size(84)
        .build_cartesian_2d(
            (1.0..furthest).log_scale(),
            (least.min(most).max(0.1) * 0.7..most * 1.4).log_scale(),
        )?;
    chart
        .configure_mesh()
        .x_desc("percentile")
        .y_desc("time")
        .x_label_formatter(&|one_in| percent(*one_in))
        .y_label_formatter(&|micros| time(*micros))
        .draw()?;
    for ((name, line), colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        chart
            .draw_series(LineSeries::new(line.iter().copied(), colour.stroke_width(2)))?
            .label(*name)
            .legend(|(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE)
        .border_style(BLACK)
        .draw()?;
    area.present()?;
    Ok(())
}

/// Returns the percentile above which one time in `one_in` lies.
fn percent(one_in: f64) -> String {
    let percent = 100.0 - 100.0 / one_in;
    // One digit for each nine behind the decimal point.
    let digits = (one_in.log10().round() as usize).saturating_sub(2);
    format!("{percent:.digits$}")
}

fn time(micros: f64) -> String {
    match micros {
        ..1e3 => format!("{micros:.0} us"),
        ..1e6 => format!("{:.0} ms", micros / 1e3),
        _ => format!("{:.0} s", micros / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn curve(name: &str, micros: std::ops::Range<u64>) -> Curve {
        let mut times = Distribution::new().unwrap();
        for micros in micros {
            times.record(Duration::from_micros(micros));
        }
        Curve {
            name: name.to_owned(),
            times,
        }
    }

    #[test]
    fn each_distribution_that_recorded_something_has_a_line_and_a_name() {
        let curves = [
            curve("1 task", 10..500),
            curve("10 tasks", 1..9_000),
            curve("none", 0..0),
        ];
        let text = svg("pairs", &curves).unwrap();
        assert!(
            text.starts_with("<svg") && text.trim_end().ends_with("</svg>"),
            "{text}"
        );
        for (name, is_there) in [("1 task", true), ("10 tasks", true), ("none", false)] {
            let named = text.lines().any(|line| line.trim() == name);
            assert_eq!(named, is_there, "{name}: {text}");
        }
        assert!(text.matches("<polyline").count() >= 2, "{text}");
    }

    #[test]
    fn nothing_to_draw_makes_an_empty_picture() {
        assert!(svg("pairs", &[]).unwrap().ends_with("</svg>\n"));
    }

    #[test]
    fn labels_of_percentiles_have_the_right_number_of_nines() {
        assert_eq!(
            [1.0, 10.0, 100.0, 1_000.0, 10_000.0].map(percent),
            ["0", "90", "99", "99.9", "99.99"]
        );
        assert_eq!([12.0, 1_500.0, 3e6].map(time), ["12 us", "2 ms", "3 s"]);
    }
}
