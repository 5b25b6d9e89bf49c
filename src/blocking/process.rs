//! Values that belong to one process. A forked child must not release them.

use std::fmt;
use std::ops::{Deref, DerefMut};

use crate::client::Client;
use crate::handle::lock::Lock;
use crate::handle::multi_lock::MultiLock;
use crate::handle::semaphore::Semaphore;
use crate::signal::{SignalConn, SignalHandle};
use crate::take::Take;

/// The identity of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Process(u32);

impl Process {
    /// Returns the current process.
    pub(super) fn current() -> Self {
        Self(std::process::id())
    }

    /// Returns a process that is not the current one.
    #[cfg(test)]
    pub(super) fn other() -> Self {
        Self(0)
    }
}

/// A value whose drop releases something, but only in the process that created the value. In a forked child, the copy
/// of the value refers to the leases and connections of the parent. The background threads do not exist in the child,
/// and a mutex that they held during the fork stays locked for ever. So in a child, the drop forgets the value.
pub(super) struct Ours<T: Take> {
    value: T,
    /// `None` after the value was moved out. Dropping the remaining value then releases nothing.
    process: Option<Process>,
}

impl<T: Take> Ours<T> {
    pub(super) fn new(value: T) -> Self {
        Self::of(value, Process::current())
    }

    fn of(value: T, process: Process) -> Self {
        let process = Some(process);
        Self { value, process }
    }

    /// Returns the value.
    pub(super) fn into_inner(mut self) -> T {
        self.process = None;
        self.value.take()
    }
}

impl<T: Take> Drop for Ours<T> {
    fn drop(&mut self) {
        // Checks `process` first, because reading the process ID is a system call.
        if self.process.is_some_and(|process| process != Process::current()) {
            std::mem::forget(self.value.take());
        }
    }
}

impl<T: Take> Deref for Ours<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: Take> DerefMut for Ours<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T: Take + Clone> Clone for Ours<T> {
    fn clone(&self) -> Self {
        Self {
            value: self.value.clone(),
            process: self.process,
        }
    }
}

impl<T: Take + fmt::Debug> fmt::Debug for Ours<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

// Dropping a clone of these types releases nothing while another clone is left, so `take` may return a clone.

impl Take for Client {
    fn take(&mut self) -> Self {
        self.clone()
    }
}

impl Take for Lock {
    fn take(&mut self) -> Self {
        self.clone()
    }
}

impl Take for Semaphore {
    fn take(&mut self) -> Self {
        self.clone()
    }
}

impl Take for SignalConn {
    fn take(&mut self) -> Self {
        self.share()
    }
}

impl Take for SignalHandle {
    fn take(&mut self) -> Self {
        self.clone()
    }
}

impl Take for MultiLock {
    fn take(&mut self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    /// Counts its drops, but not the drop after `take`.
    struct DropCounter(Option<Rc<RefCell<u32>>>);

    impl Take for DropCounter {
        fn take(&mut self) -> Self {
            Self(self.0.take())
        }
    }

    impl Drop for DropCounter {
        fn drop(&mut self) {
            if let Some(drops) = self.0.take() {
                *drops.borrow_mut() += 1;
            }
        }
    }

    #[test]
    fn a_value_is_released_once_in_its_own_process_and_never_in_a_forked_child() {
        let drops = Rc::new(RefCell::new(0));
        let counter = || DropCounter(Some(Rc::clone(&drops)));
        drop(Ours::new(counter()));
        assert_eq!(*drops.borrow(), 1);
        drop(Ours::of(counter(), Process::other()));
        assert_eq!(*drops.borrow(), 1);
        let taken = Ours::new(counter()).into_inner();
        assert_eq!(*drops.borrow(), 1);
        drop(taken);
        assert_eq!(*drops.borrow(), 2);
    }
}
