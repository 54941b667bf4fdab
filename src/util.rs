//! What several modules need and no library has.

use std::error::Error;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Any error, where nobody tells one from another.
pub(crate) type AnyError = Box<dyn Error + Send + Sync>;

/// Takes a lock. A panic of somebody who had it does not matter: what is behind our locks is whole at all times.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
