//! Translating never allocates: all vectors run under an allocator that counts.

#![allow(unsafe_code, clippy::unwrap_used)]

mod support;

use clatd_translator::{Frame, HEADROOM, Kind, Offload, PacketBuf, Translator};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use support::{build, vector};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: everything is passed on to the system allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn no_allocation_per_packet() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors");
    let mut packets = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        for case in vector::parse("", &text) {
            let translator = Translator::new(vector::config(&case.config)).unwrap();
            let mut worker = translator.worker(0);
            let packet = build::packet(&case.input);
            let mut buffer = vec![0; HEADROOM];
            buffer.extend(&packet);
            let mut packet = PacketBuf::new(&mut buffer, HEADROOM, packet.len()).unwrap();
            let mut results = 0;
            let mut out = |_: Kind, _: &Offload, mut frame: Frame<'_>| {
                results += frame.with_header(&[0; Offload::LENGTH]).map_or(0, <[u8]>::len);
            };
            let before = ALLOCATIONS.get();
            translator.translate(&mut worker, 0, case.offload, &mut packet, &mut out);
            assert_eq!(ALLOCATIONS.get() - before, 0, "{}", case.name);
            packets += 1;
        }
    }
    assert!(packets > 250);
}
