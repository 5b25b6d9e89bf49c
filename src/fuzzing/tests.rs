//! Runs every target on its committed corpus.

use std::fs;
use std::path::Path;

/// Runs a target on every file of its corpus. The published package has no corpus.
fn every_input_of(target: &str, run: fn(&[u8])) {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    if !fuzz.exists() {
        return println!("not run: there is no {}", fuzz.display());
    }
    let folder = fuzz.join("corpus").join(target);
    let mut count = 0;
    for file in fs::read_dir(&folder).unwrap() {
        let path = file.unwrap().path();
        // Shown if the target fails.
        println!("{}", path.display());
        run(&fs::read(&path).unwrap());
        count += 1;
    }
    assert!(count >= 12, "{} holds {count} inputs", folder.display());
}

#[test]
fn the_address_target_finds_nothing_in_its_corpus() {
    every_input_of("address", super::address);
}

#[test]
fn the_answers_target_finds_nothing_in_its_corpus() {
    every_input_of("answers", super::answers);
}

#[test]
fn the_lane_target_finds_nothing_in_its_corpus() {
    every_input_of("lane", super::lane);
}

#[test]
fn the_patterns_target_finds_nothing_in_its_corpus() {
    every_input_of("patterns", super::patterns);
}

#[test]
fn the_pem_target_finds_nothing_in_its_corpus() {
    every_input_of("pem", super::pem);
}

#[test]
fn the_requests_target_finds_nothing_in_its_corpus() {
    every_input_of("requests", super::requests);
}

#[test]
fn the_shard_target_finds_nothing_in_its_corpus() {
    every_input_of("shard", super::shard);
}

#[test]
fn the_stats_target_finds_nothing_in_its_corpus() {
    every_input_of("stats", super::stats);
}

#[test]
fn the_url_target_finds_nothing_in_its_corpus() {
    every_input_of("url", super::url);
}
