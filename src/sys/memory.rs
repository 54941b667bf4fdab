//! How the C library's allocator is to work, so that a daemon with hundreds of instances stays small.

/// Buffers of at least so many bytes get pages of their own. Those that are never written to cost nothing then, and the
/// others are given back when they are freed.
#[cfg(target_env = "gnu")]
const OWN_PAGES: libc::c_int = 64 * 1024;

/// One heap for all threads. By itself the C library makes up to eight for each processor, and each keeps what it once
/// needed. The threads that move packets allocate nothing while they do so, and the others do little at the same time.
/// To be called before there are other threads.
pub(crate) fn keep_small() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt(3) takes numbers only. It is refused at worst, which leaves all as it was.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, OWN_PAGES);
    }
}
