//! Draws the results as a plot.

use std::error::Error;
use std::path::Path;

use plotters::prelude::*;

use super::results::{Keys, Results, Spread};
use super::table::{number, title};

const SIZE: (u32, u32) = (960, 480);

/// The width of the legend, which names the sides. In pixels, like [`SIZE`].
const LEGEND: u32 = 260;

/// Seven colours of the palette of Okabe and Ito, which people with colour blindness can tell apart, and a light green
/// and a grey.
const COLOURS: [RGBColor; 9] = [
    RGBColor(213, 94, 0),
    RGBColor(230, 159, 0),
    RGBColor(0, 114, 178),
    RGBColor(86, 180, 233),
    RGBColor(0, 158, 115),
    RGBColor(120, 200, 160),
    RGBColor(204, 121, 167),
    RGBColor(130, 130, 130),
    RGBColor(0, 0, 0),
];

/// Draws the pairs a second (vertical axis) for each number of workers (horizontal axis). Both axes are logarithmic.
/// Each side has a line through its medians. A bar at each point reaches from the lowest rate to the highest rate.
pub(crate) fn draw(results: &Results, keys: Keys, path: &Path) -> Result<(), Box<dyn Error>> {
    let workers = results.workers(keys);
    let (Some(first), Some(last)) = (workers.iter().min(), workers.iter().max()) else {
        return Ok(());
    };
    let lines: Vec<Vec<(f64, Spread)>> = results
        .sides
        .iter()
        .map(|side| {
            let point = |workers: &usize| Some((*workers as f64, results.spread(&side.name, keys, *workers)?));
            workers.iter().filter_map(point).collect()
        })
        .collect();
    let spreads = || lines.iter().flatten().map(|(_, spread)| spread);
    let least = spreads().map(|spread| spread.least).fold(f64::INFINITY, f64::min);
    let most = spreads().map(|spread| spread.most).fold(1.0, f64::max);

    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let (left, right) = area.split_horizontally(SIZE.0 - LEGEND);
    let mut chart = ChartBuilder::on(&left)
        .caption(title(keys), ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(84)
        .build_cartesian_2d(
            (*first as f64 * 0.8..*last as f64 * 1.25).log_scale(),
            (least.min(most) * 0.7..most * 1.5).log_scale(),
        )?;
    chart
        .configure_mesh()
        .x_desc("workers")
        .y_desc("pairs of acquire and release a second")
        .x_label_formatter(&|workers| number(workers.round() as usize))
        .y_label_formatter(&|pairs| number(pairs.round() as usize))
        .label_style(("sans-serif", 14))
        .light_line_style(WHITE)
        .draw()?;
    for (place, ((side, line), colour)) in results.sides.iter().zip(&lines).zip(COLOURS.iter().cycle()).enumerate() {
        let style = colour.stroke_width(2);
        let points = line.iter().map(|(workers, spread)| (*workers, spread.median));
        chart.draw_series(LineSeries::new(points, style).point_size(3))?;
        let bars = line.iter().map(|(workers, spread)| {
            PathElement::new(
                [(*workers, spread.least), (*workers, spread.most)],
                colour.stroke_width(1),
            )
        });
        chart.draw_series(bars)?;
        let height = 60 + 24 * place as i32;
        right.draw(&PathElement::new([(4, height), (24, height)], style))?;
        let text = Text::new(side.label.as_str(), (30, height - 7), ("sans-serif", 14));
        right.draw(&text)?;
    }
    area.present()?;
    Ok(())
}
