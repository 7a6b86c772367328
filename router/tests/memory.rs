//! Memory as it was decided at start. Alone in its program: how large sockets' buffers are is one decision for a process.

mod common;

use bamqp_router::budget::Memory;
use bamqp_router::daemon::Daemon;
use bamqp_router::keys::KeyPair;
use bamqp_router::net;
use common::config;

#[test]
fn where_memory_is_small_so_are_sockets_and_status_says_what_was_decided() {
    let memory = Memory { available: Some(8 << 20), sockets: Some(1_200 << 10) };
    let config = config();
    let daemon = Daemon::start_within(config, KeyPair::from_seed([3; 32]), &memory).unwrap();
    let buffer = daemon.shared().budget.buffer.unwrap();
    let near = net::start_connect(daemon.client_addresses()[0], None).unwrap();
    // The kernel doubles what it is told, for its own bookkeeping (socket(7)).
    assert_eq!(net::receive_buffer(&near).unwrap(), 2 * buffer);
    let text = bamqp_router::status::views::status(&daemon.shared()).text();
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for told in
        ["half of what was available 4.0 MiB", "memory at most", "buffer of a socket 128 KiB", "max sessions"]
    {
        assert!(words.contains(told), "{told}: {text}");
    }
}
