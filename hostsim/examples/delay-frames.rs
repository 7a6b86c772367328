//! A line that takes its time: relays Ethernet frames between two packet sockets and holds each for a fixed time, in
//! order. For kernels without netem (`scripts/bench`). The sockets are its standard input and output, bound to their
//! interfaces by whoever starts it, so that it needs no rights of its own. Not responsible for rates: those are the
//! interfaces' queues; a frame that does not fit into one is lost there, as it should be. Runs until it is killed.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, SendFlags, recv, send};

const USAGE: &str = "expected MS: how long each frame is held, 0 to 10000; standard input and output have to be \
                     packet sockets";

/// Largest frame: without offloads nothing longer comes.
const FRAME: usize = 2048;

/// Most frames on the way in one direction: 24 MB of them, 200 ms at 1 Gbit/s.
const ON_THE_WAY: usize = 16384;

/// One direction.
struct Way<'a> {
    from: BorrowedFd<'a>,
    to: BorrowedFd<'a>,
    held: VecDeque<(Instant, Vec<u8>)>,
    /// Buffers to use again.
    spare: Vec<Vec<u8>>,
}

impl Way<'_> {
    /// Takes in what has come, up to a bound so that what is due goes out in time.
    fn take(&mut self, delay: Duration) {
        for _ in 0..64 {
            let mut frame = self.spare.pop().unwrap_or_default();
            frame.resize(FRAME, 0);
            match recv(self.from, frame.as_mut_slice(), RecvFlags::DONTWAIT | RecvFlags::TRUNC) {
                Ok((length, whole)) if length == whole && self.held.len() < ON_THE_WAY => {
                    frame.truncate(length);
                    self.held.push_back((Instant::now() + delay, frame));
                }
                Ok(_) => self.spare.push(frame),
                // Nothing there, or the interface is down: a line through which nothing comes.
                Err(_) => return self.spare.push(frame),
            }
        }
    }

    /// Sends what is due; when the next will be.
    fn give(&mut self) -> Option<Instant> {
        let now = Instant::now();
        while self.held.front().is_some_and(|(due, _)| *due <= now) {
            let (_, frame) = self.held.pop_front()?;
            // What the queue or the interface does not take is lost.
            let _ = send(self.to, &frame, SendFlags::DONTWAIT);
            self.spare.push(frame);
        }
        self.held.front().map(|(due, _)| *due)
    }
}

fn main() -> ExitCode {
    let argument = std::env::args().nth(1).and_then(|text| text.parse::<f64>().ok());
    let Some(ms) = argument.filter(|ms| (0.0..=10_000.0).contains(ms)) else {
        eprintln!("delay-frames: {USAGE}");
        return ExitCode::from(2);
    };
    let delay = Duration::from_secs_f64(ms / 1000.0);
    let (one, other) = (std::io::stdin(), std::io::stdout());
    let (one, other) = (one.as_fd(), other.as_fd());
    let way = |from, to| Way { from, to, held: VecDeque::new(), spare: Vec::new() };
    let mut ways = [way(one, other), way(other, one)];
    loop {
        let next = ways.iter_mut().filter_map(Way::give).min();
        let wait = next.map(|due| due.saturating_duration_since(Instant::now()));
        let wait =
            wait.map(|wait| Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos().into() });
        let mut fds = [PollFd::new(&one, PollFlags::IN), PollFd::new(&other, PollFlags::IN)];
        if let Err(error) = poll(&mut fds, wait.as_ref())
            && error != rustix::io::Errno::INTR
        {
            eprintln!("delay-frames: {error}; {USAGE}");
            return ExitCode::FAILURE;
        }
        for way in &mut ways {
            way.take(delay);
        }
    }
}
