//! What belongs to this process, and must not be given back by a child that was forked from it.

use std::fmt;
use std::ops::{Deref, DerefMut};

use crate::client::Client;
use crate::handle::lock::Lock;
use crate::handle::multi_lock::MultiLock;
use crate::handle::semaphore::Semaphore;
use crate::signal::{SignalConn, SignalHandle};
use crate::take::Take;

/// Names a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Process(u32);

impl Process {
    /// The one that runs this.
    pub(super) fn current() -> Self {
        Self(std::process::id())
    }

    /// None that runs.
    #[cfg(test)]
    pub(super) fn other() -> Self {
        Self(0)
    }
}

/// Something that gives things back when it is dropped, but only in the process that made it: in a forked child the
/// same bytes stand for what the parent holds, and the threads that would take the message do not exist; a lock of
/// theirs that was taken when the process forked stays taken for ever. So there it is forgotten instead.
pub(super) struct Ours<T: Take> {
    value: T,
    /// `None` once the value was taken out: what is left gives nothing back.
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

    /// The thing itself, to be used up.
    pub(super) fn into_inner(mut self) -> T {
        self.process = None;
        self.value.take()
    }
}

impl<T: Take> Drop for Ours<T> {
    fn drop(&mut self) {
        // Asking for the process is a system call.
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

// What is cloned gives nothing back as long as any clone is left.

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

    /// Tells when it is dropped, unless it was taken.
    struct Teller(Option<Rc<RefCell<u32>>>);

    impl Take for Teller {
        fn take(&mut self) -> Self {
            Self(self.0.take())
        }
    }

    impl Drop for Teller {
        fn drop(&mut self) {
            if let Some(told) = self.0.take() {
                *told.borrow_mut() += 1;
            }
        }
    }

    #[test]
    fn what_is_dropped_here_is_given_back_once_and_in_a_forked_child_never() {
        let told = Rc::new(RefCell::new(0));
        let teller = || Teller(Some(Rc::clone(&told)));
        drop(Ours::new(teller()));
        assert_eq!(*told.borrow(), 1);
        drop(Ours::of(teller(), Process::other()));
        assert_eq!(*told.borrow(), 1);
        let taken = Ours::new(teller()).into_inner();
        assert_eq!(*told.borrow(), 1);
        drop(taken);
        assert_eq!(*told.borrow(), 2);
    }
}
