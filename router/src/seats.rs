//! The places of clients' connections: there is a limit, and where it is reached, the connection that has been without a
//! request for longest makes room for a new one. (Browsers keep connections that they may never use again; any server
//! may close those.) Not responsible for what is said on them.

use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

/// How long a connection must have been without a request to make room: a request that is on its way must not be lost.
const IDLE: Duration = Duration::from_secs(1);

/// Most connections that were told to make room and whose threads have not ended yet: so many more there can be for a
/// moment.
pub const MAX_LEAVING: usize = 8;

/// All places.
#[derive(Debug, Default)]
pub struct Seats {
    taken: Mutex<Vec<Taken>>,
}

#[derive(Debug)]
struct Taken {
    socket: Weak<TcpStream>,
    /// Since when it is without a request; `None` while it has one.
    idle: Option<Instant>,
    is_leaving: bool,
}

/// One place, given back when it is dropped.
#[derive(Debug)]
pub struct Seat {
    seats: Arc<Seats>,
    socket: Weak<TcpStream>,
}

impl Seats {
    /// A place for `socket`, if there is one among `most`.
    pub fn take(self: &Arc<Self>, socket: &Arc<TcpStream>, most: usize, now: Instant) -> Option<Seat> {
        let mut taken = self.lock();
        let leaving = taken.iter().filter(|seat| seat.is_leaving).count();
        if taken.len() - leaving >= most {
            if leaving >= MAX_LEAVING {
                return None;
            }
            let idle = |seat: &Taken| {
                seat.idle.filter(|since| now.saturating_duration_since(*since) >= IDLE && !seat.is_leaving)
            };
            let longest =
                taken.iter_mut().filter(|seat| idle(seat).is_some()).min_by_key(|seat| seat.idle)?;
            longest.is_leaving = true;
            if let Some(socket) = longest.socket.upgrade() {
                let _ = socket.shutdown(Shutdown::Both); // an error means that it is closed already
            }
        }
        let socket = Arc::downgrade(socket);
        taken.push(Taken { socket: socket.clone(), idle: Some(now), is_leaving: false });
        drop(taken);
        Some(Seat { seats: self.clone(), socket })
    }

    /// How many there are now.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Taken>> {
        // Every change is one call, so a panic elsewhere leaves nothing half done.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// The connection has a request now, or has none since `idle`.
    pub fn set_idle(&self, idle: Option<Instant>) {
        let mut taken = self.seats.lock();
        if let Some(seat) = taken.iter_mut().find(|seat| seat.socket.ptr_eq(&self.socket)) {
            seat.idle = idle;
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.lock().retain(|seat| !seat.socket.ptr_eq(&self.socket));
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::net;

    #[test]
    fn the_one_that_is_idle_for_longest_makes_room_and_busy_ones_do_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connect = || Arc::new(TcpStream::connect(address).unwrap());
        let (seats, start) = (Arc::new(Seats::default()), Instant::now());
        let (one, two, three) = (connect(), connect(), connect());
        let first = seats.take(&one, 2, start).unwrap();
        let second = seats.take(&two, 2, start + IDLE / 2).unwrap();
        assert!(seats.take(&three, 2, start + IDLE / 2).is_none(), "nobody is idle for long enough");
        first.set_idle(None);
        assert!(
            seats.take(&three, 2, start + IDLE).is_none(),
            "one is busy, two is not idle for long enough"
        );
        let third = seats.take(&three, 2, start + 2 * IDLE).unwrap();
        assert!(net::is_quiet(&one) && !net::is_quiet(&two), "two was closed");
        assert_eq!(seats.count(), 3);
        assert!(seats.take(&connect(), 2, start + 2 * IDLE).is_none());
        drop(second);
        assert_eq!(seats.count(), 2);
        drop((first, third));
        assert_eq!(seats.count(), 0);
    }
}
