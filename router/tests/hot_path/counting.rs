//! A global allocator that counts, by the name of the thread that allocates. Not responsible for what may be allocated.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The daemon's threads that move payload: a lane's, a client's, and that of a connection from another router.
pub const NAMES: [&str; 3] = ["lane", "client", "serve"];

static COUNTS: [AtomicUsize; NAMES.len()] = [const { AtomicUsize::new(0) }; NAMES.len()];

/// How often threads of each of [`NAMES`] have allocated so far, in all daemons of this process together.
pub fn allocations() -> [usize; NAMES.len()] {
    std::array::from_fn(|i| COUNTS[i].load(Ordering::SeqCst))
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// `realloc` and `alloc_zeroed` are the trait's own, which call `alloc`.
// SAFETY: both calls are passed on as they come; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let name = thread_name();
        if let Some(i) = NAMES.iter().position(|wanted| name.starts_with(wanted.as_bytes())) {
            COUNTS[i].fetch_add(1, Ordering::SeqCst);
        }
        // SAFETY: the caller keeps the trait's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the trait's contract; it was allocated by `System`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// The name that the system knows, padded with zeros. Asked each time: `std::thread` may allocate to tell it.
fn thread_name() -> [u8; 16] {
    let mut name = [0u8; 16];
    // SAFETY: PR_GET_NAME writes at most 16 bytes, the terminating zero included, to where its argument points.
    unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    name
}
