//! What several modules need and no library has.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Takes a lock. A panic of somebody who had it does not matter: what is behind our locks is whole at all times.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
