//! A macro that runs each test three times: in real time, in paused time, and on several threads.

use std::time::Duration;

/// Runs a check. Panics if the check takes 300 s by the clock of its runtime, because it hangs then.
pub(crate) async fn in_time(check: impl Future<Output = ()>) {
    tokio::time::timeout(Duration::from_secs(300), check)
        .await
        .expect("the check took 300 s, so it hangs");
}

/// Makes three tests from each named function of the module `checks`.
macro_rules! everywhere {
    ($($name:ident)*) => {
        $(mod $name {
            #[tokio::test]
            async fn with_plain_time() {
                crate::everywhere::in_time(super::checks::$name()).await;
            }

            #[tokio::test(start_paused = true)]
            async fn with_paused_time() {
                crate::everywhere::in_time(super::checks::$name()).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn on_several_threads() {
                crate::everywhere::in_time(super::checks::$name()).await;
            }
        })*
    };
}
