//! Links `bamqp-core` without std and without a global allocator. If either creeps in, this does not link: std brings
//! a second panic handler, alloc wants an allocator. What is called here is called for real, so that nothing is left
//! out as unused.
#![no_std]
#![no_main]

use core::hint::black_box;

use bamqp_core::http::{request::Request, response::Response};
use bamqp_core::limits::SLOT_BYTES;
use bamqp_core::message::PeerRequest;
use bamqp_core::time::{Instant, Span};
use bamqp_core::transfer::{ClientEvent, LaneEvent, LaneId, OwnLink, Transfer};

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Slots as a router without a heap would have them.
static mut SLOTS: [[u8; SLOT_BYTES]; 8] = [[0; SLOT_BYTES]; 8];

#[unsafe(no_mangle)]
extern "C" fn _start() -> ! {
    let head = black_box(b"GET http://example.org/ HTTP/1.1\r\nHost: example.org\r\n\r\n");
    if let Ok(Some((request, _))) = Request::parse(head) {
        let _ = black_box(PeerRequest::parse(&request).is_ok());
    }
    let _ = black_box(Response::parse(black_box(b"HTTP/1.1 200 OK\r\n\r\n")).is_ok());
    let own = OwnLink { rate: 1, rtt: Span::ZERO, hold: 0 };
    // SAFETY: nothing else runs, and this function never returns.
    let slots = unsafe { (&raw mut SLOTS).as_mut() }.into_iter().flatten();
    if let Some(mut transfer) =
        Transfer::<_, 16>::new(Instant::default(), 0..black_box(100_000), slots, own, [7; 32])
    {
        let _ = black_box(transfer.lane(Instant::default(), LaneId::ORIGINAL, LaneEvent::Idle));
        let _ = black_box(transfer.client(Instant::default(), ClientEvent::Idle));
    }
    loop {}
}
