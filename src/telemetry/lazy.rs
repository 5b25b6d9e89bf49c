//! Values that are computed only if a recorder uses them. Such a value needs the clock, and reading the clock costs
//! more than all other work for the metrics.

use std::cell::Cell;

use metrics::{Gauge, IntoF64};

/// A value that is not computed yet.
pub(crate) struct Lazy<F>(pub(crate) F);

impl<F: FnOnce() -> f64> IntoF64 for Lazy<F> {
    fn into_f64(self) -> f64 {
        (self.0)()
    }
}

/// Returns whether a recorder uses this gauge. The gauge does not change.
pub(crate) fn is_recorded(gauge: &Gauge) -> bool {
    let asked = Cell::new(false);
    gauge.increment(Lazy(|| {
        asked.set(true);
        0.0
    }));
    asked.get()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;

    use super::*;

    #[test]
    fn a_value_is_computed_only_for_a_recorder() {
        let value = Arc::new(AtomicU64::new(0));
        assert!(is_recorded(&Gauge::from_arc(Arc::clone(&value))));
        assert_eq!(value.load(std::sync::atomic::Ordering::Relaxed), 0.0_f64.to_bits());
        assert!(!is_recorded(&Gauge::noop()));
    }
}
