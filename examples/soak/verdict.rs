//! Judges whether the measured values stayed flat.
//!
//! The first sixth of the run is the warm-up, which is not judged. For each value, the median of the second sixth is
//! compared with the median of the last sixth.
//!
//! For the client's memory, the slope after the warm-up is judged, too. It is the median of the slopes between all
//! pairs of samples after the warm-up (the Theil–Sen estimator), because a few outliers hardly change this median.

use crate::sample::{Process, Sample};

/// Compares the process after the shutdown of all clients with the same process before the first client. Returns
/// whether neither the number of descriptors nor the number of tasks has grown.
pub(crate) fn nothing_is_left(before: &Process, left: &Process) -> bool {
    println!(
        "before there was a client: {} descriptors, {} tasks; when all were gone: {} and {}",
        before.descriptors, before.tasks, left.descriptors, left.tasks
    );
    left.descriptors <= before.descriptors && left.tasks <= before.tasks
}

/// Returns whether the samples stayed flat. Prints the compared values.
pub(crate) fn judge(samples: &[Sample], only_counts: bool) -> bool {
    let sixth = samples.len() / 6;
    if sixth == 0 {
        println!("{} samples are too few to compare", samples.len());
        return only_counts;
    }
    let early = &samples[sixth..2 * sixth];
    let late = &samples[samples.len() - sixth..];
    let compare = |of: fn(&Sample) -> f64| (median(early.iter().map(of)), median(late.iter().map(of)));

    let mut flat = true;
    println!(
        "\n{:>22} {:>12} {:>12} {:>12}",
        "", "2nd sixth", "last sixth", "allowed"
    );
    let counts: [Row; 3] = [
        ("descriptors", |sample| sample.client.descriptors as f64, 1.1, 16.0),
        ("tasks", |sample| sample.client.tasks as f64, 1.1, 16.0),
        ("threads", |sample| sample.client.threads as f64, 1.0, 1.0),
    ];
    for (name, of, factor, more) in counts {
        flat &= row(name, compare(of), factor, more, 1.0);
    }
    if only_counts {
        return flat;
    }
    flat &= row(
        "memory, KiB",
        compare(|sample| sample.client.resident as f64),
        1.05,
        4_096.0,
        1.0,
    );
    let servers: [Row; 4] = [
        ("servers: keys", |sample| sample.servers.keys as f64, 1.2, 2_000.0),
        (
            "servers: descriptors",
            |sample| sample.servers.descriptors as f64,
            1.1,
            32.0,
        ),
        ("servers: tasks", |sample| sample.servers.tasks as f64, 1.1, 64.0),
        (
            "servers: memory, KiB",
            |sample| sample.servers_resident as f64,
            1.1,
            4_096.0,
        ),
    ];
    for (name, of, factor, more) in servers {
        flat &= row(name, compare(of), factor, more, 1.0);
    }
    flat &= slope(
        &samples[sixth..],
        median(early.iter().map(|sample| sample.client.resident as f64)),
    );
    // The probe does not use the client. If its latency grew, the machine became slower, and the client's latencies may
    // grow by the same factor.
    let slower = |(early, late): (f64, f64)| if early > 0.0 { (late / early).max(1.0) } else { 1.0 };
    let (half, most) = (
        slower(compare(|sample| sample.bare.p50 as f64)),
        slower(compare(|sample| sample.bare.p99 as f64)),
    );
    println!("{:>22} {half:>12.2} {most:>12.2}", "machine slower, x");
    let latencies: [(Row, f64); 4] = [
        (("pair p50, us", |sample| sample.pair.p50 as f64, 1.5, 500.0), half),
        (("pair p99, us", |sample| sample.pair.p99 as f64, 2.0, 5_000.0), most),
        (("wait p50, us", |sample| sample.wait.p50 as f64, 1.5, 5_000.0), half),
        (("wait p99, us", |sample| sample.wait.p99 as f64, 2.0, 50_000.0), most),
    ];
    for ((name, of, factor, more), machine) in latencies {
        flat &= row(name, compare(of), factor, more, machine);
    }
    flat
}

/// The name of a value, the function that reads it from a sample, the factor by which it may grow, and how much it may
/// grow in addition.
type Row = (&'static str, fn(&Sample) -> f64, f64, f64);

fn row(name: &str, (early, late): (f64, f64), factor: f64, more: f64, machine: f64) -> bool {
    let allowed = early * factor * machine + more;
    let flat = late <= allowed;
    let said = if flat { "" } else { "  GREW" };
    println!("{name:>22} {early:>12.0} {late:>12.0} {allowed:>12.0}{said}");
    flat
}

/// Prints the growth of the client's memory per hour, and returns whether it is within the limit. The limit is the
/// largest of three values: 5 % of `resident` per hour, 4 MiB per hour, and 2 MiB over the time of all samples.
fn slope(samples: &[Sample], resident: f64) -> bool {
    let mut slopes = Vec::new();
    for (number, first) in samples.iter().enumerate() {
        for second in &samples[number + 1..] {
            let hours = (second.at - first.at).as_secs_f64() / 3_600.0;
            slopes.push((second.client.resident as f64 - first.client.resident as f64) / hours);
        }
    }
    let grows = median(slopes);
    let first = samples.first().map(|sample| sample.at).unwrap_or_default();
    let span = samples.last().map(|sample| sample.at - first).unwrap_or_default();
    let at_least = 2_048.0 / (span.as_secs_f64() / 3_600.0);
    let allowed = (resident * 0.05).max(4_096.0).max(at_least);
    let flat = grows <= allowed;
    let said = if flat { "" } else { "  GREW" };
    println!(
        "{:>22} {:>12} {grows:>12.0} {allowed:>12.0}{said}",
        "memory, KiB/hour", ""
    );
    flat
}

fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
