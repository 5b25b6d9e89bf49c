//! A gauge that shows a number.

use metrics::Gauge;

use super::lazy::is_recorded;
use crate::unwind::catch;

/// Publishes how a number changes.
///
/// Several clients of one process may share a series, so only differences are published. When the owner ends, even by a
/// panic, its number is subtracted again.
pub(crate) struct Level {
    gauge: Gauge,
    shown: usize,
}

impl Level {
    pub(crate) fn new(gauge: Gauge) -> Self {
        // Registered at zero, so that the series exists from the start.
        gauge.increment(0.0);
        Self { gauge, shown: 0 }
    }

    /// Returns whether a recorder uses the gauge.
    pub(crate) fn is_recorded(&self) -> bool {
        is_recorded(&self.gauge)
    }

    /// Sets the number to `now`.
    pub(crate) fn show(&mut self, now: usize) {
        let before = std::mem::replace(&mut self.shown, now);
        if now > before {
            self.gauge.increment((now - before) as f64);
        } else if now < before {
            self.gauge.decrement((before - now) as f64);
        }
    }
}

/// Catches a panic of the recorder. If another panic drops this value, a second panic would abort the process.
impl Drop for Level {
    fn drop(&mut self) {
        drop(catch(|| self.show(0)));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use metrics::GaugeFn;

    use super::*;

    #[derive(Default)]
    struct Sum(std::sync::Mutex<f64>);

    impl GaugeFn for Sum {
        fn increment(&self, by: f64) {
            *self.0.lock().unwrap() += by;
        }
        fn decrement(&self, by: f64) {
            *self.0.lock().unwrap() -= by;
        }
        fn set(&self, _: f64) {
            panic!("that would overwrite the numbers of other clients");
        }
    }

    /// Works this many times, then panics.
    struct Worn(std::sync::atomic::AtomicUsize);

    impl Worn {
        fn wear(&self) {
            use std::sync::atomic::Ordering::SeqCst;
            let left = self.0.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1));
            assert!(left.is_ok(), "worn out");
        }
    }

    impl GaugeFn for Worn {
        fn increment(&self, _: f64) {
            self.wear();
        }
        fn decrement(&self, _: f64) {
            self.wear();
        }
        fn set(&self, _: f64) {}
    }

    #[test]
    fn dropping_a_level_never_panics_even_if_the_recorder_does() {
        let level = |lasts: usize| {
            let mut level = Level::new(Gauge::from_arc(Arc::new(Worn(lasts.into()))));
            level.show(1);
            level
        };
        drop(level(2));
        let unwound = std::panic::catch_unwind(|| {
            let _levels = [level(2), level(2)];
            level(1)
        });
        assert!(unwound.is_err());
    }

    #[test]
    fn levels_of_one_series_add_up_and_are_subtracted_again() {
        let sum = Arc::new(Sum::default());
        let level = || Level::new(Gauge::from_arc(Arc::clone(&sum)));
        let (mut a, mut b) = (level(), level());
        a.show(3);
        b.show(4);
        a.show(1);
        assert_eq!(*sum.0.lock().unwrap(), 5.0);
        drop(a);
        assert_eq!(*sum.0.lock().unwrap(), 4.0);
        b.show(0);
        drop(b);
        assert_eq!(*sum.0.lock().unwrap(), 0.0);
    }
}
