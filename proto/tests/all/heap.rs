//! How much memory a piece of code holds at its worst, counted by the allocator of this test
//! binary, each thread for itself.
#![allow(unsafe_code, reason = "an allocator is unsafe by its trait; this one forwards to System")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

fn count(bytes: isize) {
    // Fails only while the thread is being torn down, when nobody measures.
    let live = LIVE.try_with(|live| {
        live.set(live.get() + bytes);
        live.get()
    });
    if let Ok(live) = live {
        PEAK.with(|peak| peak.set(peak.get().max(live)));
    }
}

// SAFETY: every call goes to `System` unchanged; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: the caller's contract is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        // SAFETY: the caller's contract is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both blocks may be alive for a moment.
        count(size.cast_signed());
        count(-layout.size().cast_signed());
        // SAFETY: the caller's contract is passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// What `work` returns, and the most bytes it held at once beyond what was held before.
pub(crate) fn peak<R>(work: impl FnOnce() -> R) -> (R, usize) {
    let before = LIVE.get();
    PEAK.set(before);
    let result = work();
    let most = PEAK.get() - before;
    (result, usize::try_from(most).unwrap_or(0))
}

#[test]
fn the_count_counts() {
    let (_, most) = peak(|| drop(vec![0_u8; 1000]));
    assert_eq!(most, 1000);
    let (kept, most) = peak(|| vec![1_u8; 10]);
    assert_eq!((kept.len(), most), (10, 10));
}
