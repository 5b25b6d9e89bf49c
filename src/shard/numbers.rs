//! Numbers the requests of one connection and tracks which of them are over.

/// Numbers the requests of a connection, from 1, and tracks the largest number up to which all requests are over. A
/// request is over after its answer, or if it was skipped because its caller left before it was written.
///
/// Answers arrive in the order of the requests. But a skipped request has no answer, and this type does not learn which
/// requests were skipped. So the number of answers alone is too low, by the number of skipped requests. This type uses
/// marks to correct that. A mark records the last request that was sent, and how many requests were open at that time.
/// When that many further answers have arrived, all requests up to the mark are over, and the next mark is set. So the
/// number is never too high. It is too low by at most the number of requests that were sent after the previous mark.
#[derive(Debug, Default)]
pub(super) struct RequestNumbers {
    sent: u64,
    /// All requests up to this one are known to be over.
    over: u64,
    /// The last request that was sent before the mark was set.
    mark: u64,
    /// The number of answers that are still to come before all requests up to the mark are over.
    until_mark: usize,
}

impl RequestNumbers {
    /// Returns the number of the next request.
    pub(super) fn next(&mut self) -> u64 {
        self.sent += 1;
        self.sent
    }

    /// Counts answers. After them, `open` requests are neither answered nor skipped.
    pub(super) fn answered(&mut self, answers: usize, open: usize) {
        if open == 0 {
            self.over = self.sent;
            self.until_mark = 0;
            return;
        }
        self.over += answers as u64;
        if answers < self.until_mark {
            self.until_mark -= answers;
            return;
        }
        self.over = self.over.max(self.mark);
        (self.mark, self.until_mark) = (self.sent, open);
    }

    /// Returns whether a request, and all before it, are known to be over.
    pub(super) fn is_over(&self, number: u64) -> bool {
        number <= self.over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_counts_for_the_first_open_request() {
        let mut numbers = RequestNumbers::default();
        assert_eq!([numbers.next(), numbers.next(), numbers.next()], [1, 2, 3]);
        numbers.answered(2, 1);
        assert!(numbers.is_over(2) && !numbers.is_over(3));
        numbers.answered(1, 0);
        assert!(numbers.is_over(3));
    }

    /// Simulates a connection that is never idle, and on which requests are skipped all the time.
    #[test]
    fn the_count_of_a_busy_connection_is_never_too_high_and_its_lag_is_bounded() {
        let mut random = fastrand::Rng::with_seed(1);
        for most_open in [1, 2, 10, 100] {
            let mut numbers = RequestNumbers::default();
            // The open requests: their numbers, and whether they are skipped when they are about to be written.
            let mut unwritten = std::collections::VecDeque::new();
            let mut written = std::collections::VecDeque::new();
            let mut last_over = 0;
            for _ in 0..20_000 {
                while unwritten.len() + written.len() < most_open + 1 {
                    unwritten.push_back((numbers.next(), random.u8(0..3) == 0));
                }
                for _ in 0..random.usize(0..=unwritten.len()) {
                    match unwritten.pop_front() {
                        Some((_, true)) | None => {}
                        Some((number, false)) => written.push_back(number),
                    }
                }
                // At least one request stays open.
                let answers = random.usize(0..=written.len());
                written.drain(..answers);
                if written.is_empty() && unwritten.is_empty() {
                    unwritten.push_back((numbers.next(), false));
                }
                numbers.answered(answers, written.len() + unwritten.len());
                let first_open = written
                    .front()
                    .copied()
                    .or(unwritten.front().map(|(number, _)| *number));
                let first_open = first_open.unwrap_or(numbers.sent + 1);
                assert!(
                    !numbers.is_over(first_open),
                    "the count is too high, with {most_open} open"
                );
                assert!(numbers.over >= last_over);
                last_over = numbers.over;
            }
            let behind = numbers.sent - numbers.over;
            assert!(
                behind < 20 * (most_open as u64 + 2),
                "the count is too low by {behind}, with {most_open} open"
            );
        }
    }
}
