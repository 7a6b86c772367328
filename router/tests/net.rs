//! Socket primitives on loopback.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bamqp_router::net::{
    Moved, Pipe, PollFd, PollFlags, Waker, await_connect, await_readable, connect, finish_connect, listen,
    poll, read, set_rcvlowat, start_connect, write_all,
};

const PATIENCE: Duration = Duration::from_secs(10);

fn soon() -> Instant {
    Instant::now() + PATIENCE
}

/// Two ends of a connection over loopback, both non-blocking.
fn pair() -> (TcpStream, TcpStream) {
    let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let near = connect(listener.local_addr().unwrap(), None, soon()).unwrap();
    poll(&mut [PollFd::new(&listener, PollFlags::IN)], Some(soon())).unwrap();
    let far = listener.accept().unwrap().0;
    far.set_nonblocking(true).unwrap();
    (near, far)
}

#[test]
fn connects_from_the_address_it_is_told() {
    let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let from = "127.0.7.9".parse().unwrap();
    let socket = connect(listener.local_addr().unwrap(), Some(from), soon()).unwrap();
    assert_eq!(socket.local_addr().unwrap().ip(), from);
    assert_eq!(listener.accept().unwrap().1.ip(), from);
}

#[test]
fn a_refused_connection_says_so() {
    let address = listen("127.0.0.1:0".parse().unwrap()).unwrap().local_addr().unwrap();
    assert_eq!(connect(address, None, soon()).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn a_wait_ends_at_its_deadline_and_by_a_poke() {
    let waker = Waker::new().unwrap();
    let wait = |deadline| poll(&mut [PollFd::new(&waker, PollFlags::IN)], Some(deadline)).unwrap();
    assert_eq!(wait(Instant::now()), 0);
    // Not earlier, parts of a second included: where that goes wrong, every wait is a busy loop.
    let deadline = Instant::now() + Duration::from_millis(20);
    assert_eq!(wait(deadline), 0);
    assert!(Instant::now() >= deadline);
    std::thread::scope(|scope| {
        scope.spawn(|| waker.poke());
        assert_eq!(wait(soon()), 1);
    });
    assert!(waker.drain());
    assert!(!waker.drain());
    assert_eq!(wait(Instant::now()), 0);
}

#[test]
fn below_the_low_water_mark_a_socket_is_not_readable_until_its_end() {
    let (near, mut far) = pair();
    set_rcvlowat(&near, 1000).unwrap();
    let ready = || poll(&mut [PollFd::new(&near, PollFlags::IN)], Some(Instant::now())).unwrap();
    far.write_all(&[1; 999]).unwrap();
    assert_eq!(near.peek(&mut [0; 1000]).unwrap(), 999);
    assert_eq!(ready(), 0);
    far.write_all(&[1]).unwrap();
    assert_eq!(ready(), 1);
    assert_eq!(read(&near, &mut [0; 1000]).unwrap(), Moved::Bytes(1000));
    assert_eq!(ready(), 0);
    assert_eq!(read(&near, &mut [0; 1]).unwrap(), Moved::WouldBlock);
    drop(far);
    await_readable(&near, soon()).unwrap();
    assert_eq!(read(&near, &mut [0; 1]).unwrap(), Moved::End);
}

#[test]
fn a_pipe_moves_bytes_and_tells_why_it_does_not() {
    let (near, mut far) = pair();
    let (out, mut end) = pair();
    let mut pipe = Pipe::new().unwrap();
    assert_eq!(pipe.fill(&near, 100).unwrap(), Moved::WouldBlock);
    far.write_all(b"abcdef").unwrap();
    await_readable(&near, soon()).unwrap();
    assert_eq!(pipe.fill(&near, 4).unwrap(), Moved::Bytes(4));
    assert_eq!(pipe.held(), 4);
    assert_eq!(pipe.drain(&out).unwrap(), Moved::Bytes(4));
    assert_eq!(pipe.drain(&out).unwrap(), Moved::End);
    await_readable(&end, soon()).unwrap();
    let mut got = [0; 4];
    end.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"abcd");
    drop(far);
    assert_eq!(pipe.fill(&near, 100).unwrap(), Moved::Bytes(2));
    assert_eq!(pipe.fill(&near, 100).unwrap(), Moved::End);
}

#[test]
fn write_all_gives_up_on_a_reader_that_takes_nothing() {
    let (near, _far) = pair();
    let error = write_all(&near, &vec![0; 16 << 20], Duration::from_millis(50)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
}

#[test]
fn shutting_down_ends_a_connect_that_waits() {
    // A listener whose queue is full answers no further SYN: the connect would wait for its deadline.
    let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let address = listener.local_addr().unwrap();
    let _first = connect(address, None, soon()).unwrap();
    let waiting = start_connect(address, None).unwrap();
    assert!(!finish_connect(&waiting).unwrap());
    std::thread::scope(|scope| {
        let wait = scope.spawn(|| await_connect(&waiting, soon()));
        let _ = waiting.shutdown(std::net::Shutdown::Both);
        let error = wait.join().unwrap().unwrap_err();
        assert_ne!(error.kind(), ErrorKind::TimedOut, "{error}");
    });
}
