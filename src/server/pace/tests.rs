use std::cell::Cell;

use super::*;

const EACH: Duration = Duration::from_micros(100);

/// The number of requests that take [`MOST_CAUGHT_UP`].
const MOST_AT_ONCE: usize = 10;

/// A time that passes only on command.
struct Time(Cell<Instant>);

impl Time {
    fn new() -> Self {
        Self(Cell::new(Instant::now()))
    }

    fn pass(&self, time: Duration) {
        self.0.set(self.0.get() + time);
    }

    fn pace(&self) -> RequestPace<impl Fn() -> Instant> {
        RequestPace::with_clock(EACH, || self.0.get())
    }
}

/// Answers requests until the pace requires a pause. Returns how many requests it answered.
fn answer<C: Fn() -> Instant>(pace: &mut RequestPace<C>) -> usize {
    let mut answered = 0;
    loop {
        pace.take_time();
        answered += 1;
        if !pace.has_time_left() {
            return answered;
        }
    }
}

#[test]
fn requests_of_a_connection_that_had_no_turn_catch_up_by_at_most_a_millisecond() {
    let time = Time::new();
    let mut pace = time.pace();
    assert_eq!(answer(&mut pace), 1);
    time.pass(pace.left());
    pace.note_answers_sent();
    time.pass(Duration::from_millis(50));
    assert_eq!(answer(&mut pace), MOST_AT_ONCE);
    assert_eq!(pace.left(), Duration::ZERO);
    pace.note_answers_sent();
    assert_eq!(answer(&mut pace), 1);
    assert_eq!(pace.left(), EACH);
}

#[test]
fn requests_behind_a_late_answer_catch_up_by_at_most_a_millisecond() {
    let time = Time::new();
    let mut pace = time.pace();
    assert_eq!(answer(&mut pace), 1);
    time.pass(Duration::from_millis(50));
    pace.note_answers_sent();
    pace.resume();
    assert_eq!(answer(&mut pace), MOST_AT_ONCE);
}

#[test]
fn requests_do_not_catch_up_on_time_that_the_client_spent() {
    let time = Time::new();
    let mut pace = time.pace();
    assert_eq!(answer(&mut pace), 1);
    time.pass(pace.left());
    pace.note_answers_sent();
    time.pass(Duration::from_millis(50));
    pace.resume();
    assert_eq!(answer(&mut pace), 1);
    assert_eq!(pace.left(), EACH);
}

#[test]
fn many_late_answers_take_the_scheduled_time_in_total() {
    let time = Time::new();
    let mut pace = time.pace();
    let began = time.0.get();
    let mut answered = 0;
    while answered < 1000 {
        answered += answer(&mut pace);
        time.pass(pace.left());
        // The timer is late.
        time.pass(EACH * 7 / 2);
        pace.note_answers_sent();
    }
    let took = time.0.get() - began;
    let expected = EACH * u32::try_from(answered).unwrap_or_default();
    assert!(
        took >= expected && took < expected + MOST_CAUGHT_UP,
        "{took:?} {expected:?}"
    );
}
