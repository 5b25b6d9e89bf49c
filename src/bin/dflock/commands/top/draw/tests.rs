//! Tests of the drawing, cell by cell. `DFLOCK_SNAPSHOTS=write cargo test --bin dflock draw` writes the files anew.

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::style::Color;

use super::super::model::tests::{away, look};
use super::super::press::{Press, press};
use super::*;
use crate::survey::{Field, Round};

/// Returns a model of three shards after looks for a minute. The first shard is a cluster with signals, and the last
/// does not answer.
fn model() -> Model {
    let mut model = Model::new(Duration::from_secs(1), Field::Waiters, None);
    let start = Instant::now();
    for second in 0..60 {
        let looks = vec![
            look(0, start, second, &first(second)),
            look(1, start, second, &other(second)),
            away(look(2, start, second, "{}")),
        ];
        model.apply(Round {
            at: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + second),
            looks,
        });
    }
    model
}

fn first(second: u64) -> String {
    let waiters = [0, 3, 9, 14, 12, 5][second as usize / 3 % 6];
    let (owner, lease, idle) = (second / 2, 33 - second % 10, second % 7);
    let commits = 1_000 + second * 12;
    format!(
        r#"{{"connections":{},"locks":[{{"key":"orders/42","owner_conn_id":{owner},"lease_expires_in_s":{lease},"waiters":{waiters}}},
        {{"key":"reports/nightly","owner_conn_id":2,"lease_expires_in_s":{lease},"waiters":0}},
        {{"key":"red\u001b[31m and much longer than the column for keys is, at least on a narrow terminal","lease_expires_in_s":7,"waiters":1}}],
        "idle_locks":[{{"key":"orders/41","idle_s":{idle}}}],
        "signal_channels":[{{"pattern":"orders.*","listeners":4}},{{"pattern":"jobs.>","group":"workers","listeners":8}}],
        "cluster":{{"node_id":"n1","role":"leader","commit_index":{commits}}}}}"#,
        17 + second % 4,
    )
}

fn other(second: u64) -> String {
    let holders = 2 + second % 5;
    let idle: Vec<String> = (0..30)
        .map(|key| format!(r#"{{"key":"accounts/{key:02}","idle_s":{}}}"#, key + second))
        .collect();
    format!(
        r#"{{"connections":9,"semaphores":[{{"key":"workers","limit":8,"holders":{holders},"waiters":2}}],"idle_locks":[{}]}}"#,
        idle.join(",")
    )
}

fn drawn(model: &mut Model, width: u16, height: u16) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(model, &Palette::new(true), frame)).unwrap();
    terminal.backend().buffer().clone()
}

fn text(buffer: &Buffer) -> String {
    let rows = buffer.content().chunks(buffer.area.width.into());
    let lines = rows.map(|row| {
        let line: String = row.iter().map(|cell| cell.symbol()).collect();
        format!("{}\n", line.trim_end())
    });
    lines.collect()
}

fn compare(name: &str, shown: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/dflock")
        .join(name);
    if std::env::var_os("DFLOCK_SNAPSHOTS").is_some_and(|wish| wish == "write") {
        std::fs::write(&path, shown).unwrap();
        return;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(shown, expected, "{name}");
}

#[test]
fn a_narrow_and_a_wide_terminal_are_drawn_as_they_were() {
    for (width, height) in [(80, 24), (200, 50), (60, 12)] {
        let shown = text(&drawn(&mut model(), width, height));
        compare(&format!("top-{width}x{height}.txt"), &shown);
    }
}

#[test]
fn help_filters_and_pauses_are_drawn_as_they_were() {
    let mut shown = String::new();
    let mut show = |what: &str, keys: &str| {
        let mut model = model();
        for key in keys.chars() {
            press(&mut model, if key == '\n' { Press::Enter } else { Press::Char(key) });
        }
        shown.push_str(&format!("-- {what}\n{}", text(&drawn(&mut model, 80, 24))));
    };
    show("help", "?");
    show("a filter is entered", "/orders/*");
    show("a filter is refused", "/orders/\\\n");
    show("filtered, by keys, paused", "/orders/*\nssssp");
    show("nothing fits", "/nothing\n");
    compare("top-views.txt", &shown);
}

#[test]
fn before_the_first_look_it_says_what_it_waits_for() {
    let shown = text(&drawn(
        &mut Model::new(Duration::from_secs(1), Field::Key, None),
        80,
        24,
    ));
    assert!(shown.contains("the servers are asked…"), "{shown}");
}

#[test]
fn no_size_is_too_small_to_be_drawn() {
    let mut model = model();
    for view in ["", "?", "/x"] {
        model.view = View::Keys;
        for key in view.chars() {
            press(&mut model, Press::Char(key));
        }
        for width in (0..=77).step_by(7).chain([119, 120, 121, 159, 160, 161]) {
            for height in (0..=50).step_by(5).chain([11, 12]) {
                let buffer = drawn(&mut model, width, height);
                let is_small = width < LEAST.0 || height < LEAST.1;
                if width >= 40 && height >= 3 {
                    assert_eq!(
                        text(&buffer).contains("needs a terminal of 60x12"),
                        is_small,
                        "{width}x{height}"
                    );
                }
            }
        }
    }
}

#[test]
fn unreachable_shards_come_first_if_not_all_fit() {
    let mut model = Model::new(Duration::from_secs(1), Field::Key, None);
    let start = Instant::now();
    let mut looks: Vec<_> = (0..20).map(|_| look(0, start, 0, "{}")).collect();
    looks.push(away(look(2, start, 0, "{}")));
    model.apply(Round {
        at: SystemTime::UNIX_EPOCH,
        looks,
    });
    let shown = text(&drawn(&mut model, 80, 24));
    assert!(shown.contains("c.example") && shown.contains("more shards"), "{shown}");
}

#[test]
fn with_colours_off_the_drawing_has_no_colours() {
    let mut terminal = Terminal::new(TestBackend::new(200, 50)).unwrap();
    terminal
        .draw(|frame| draw(&mut model(), &Palette::new(false), frame))
        .unwrap();
    let cells = terminal.backend().buffer().content();
    assert!(
        cells
            .iter()
            .all(|cell| (cell.fg, cell.bg) == (Color::Reset, Color::Reset))
    );
    let colored = drawn(&mut model(), 200, 50);
    assert!(colored.content().iter().any(|cell| cell.fg == Color::Yellow));
}

#[test]
fn at_every_width_all_heads_are_whole_and_servers_are_named() {
    let mut before = 0;
    for width in 60..=240 {
        let shown = text(&drawn(&mut model(), width, 24));
        let heads = shown.lines().find(|line| line.starts_with("SHARD")).unwrap();
        let last = heads.split_whitespace().next_back().unwrap();
        assert!(
            [
                "WAITERS",
                "GRANTS/S",
                "HELD",
                "KEYS",
                "EXTENDED/S",
                "COMMITS/S",
                "FAILOVERS",
                "TIME"
            ]
            .contains(&last),
            "{width}: {heads}"
        );
        let server = heads.find("STATE").unwrap() - heads.find("SERVER").unwrap();
        assert!(server >= 15, "{width}: {heads}");
        assert!(shown.contains("a.example:6388") || width < 62, "{width}: {shown}");
        let count = heads.split_whitespace().count();
        assert!(count >= before, "{width}: {heads}");
        before = count;
    }
}

#[test]
fn the_last_line_has_room_for_the_place_and_the_end_of_a_filter() {
    for width in [60, 61, 70, 80, 120] {
        let shown = text(&drawn(&mut model(), width, 12));
        let last = shown.lines().last().unwrap();
        assert!(
            last.starts_with("q quit   ? help") && last.ends_with("of 35"),
            "{width}: {last}"
        );
        let mut model = model();
        let long = format!("/{}end", "orders-".repeat(30));
        for key in long.chars() {
            press(&mut model, Press::Char(key));
        }
        let shown = text(&drawn(&mut model, width, 12));
        let last = shown.lines().last().unwrap();
        assert!(
            last.starts_with("filter: …") && last.ends_with("orders-end"),
            "{width}: {last}"
        );
    }
}

#[test]
fn help_is_no_wider_than_the_smallest_terminal() {
    let mut model = model();
    press(&mut model, Press::Char('?'));
    let wide = text(&drawn(&mut model, 200, 40));
    let all: Vec<&str> = wide.lines().filter_map(|line| line.split('│').nth(1)).collect();
    let narrow = text(&drawn(&mut model, 60, 40));
    for line in all {
        assert!(narrow.contains(line.trim_end()), "{line:?}: {narrow}");
    }
}
