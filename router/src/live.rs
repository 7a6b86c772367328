//! What a running daemon must be able to end at once: its connections and its threads. Not responsible for what
//! they do.

use std::io::{self, ErrorKind};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{Builder, JoinHandle};

/// Stack of a thread, in bytes. Heads and buffers live on the heap; what remains is calls, parsed field lines and
/// the system's resolver: half of it suffices, unoptimised too. Only touched pages cost memory.
pub const STACK_BYTES: usize = if cfg!(debug_assertions) { 256 * 1024 } else { 96 * 1024 };

/// The open sockets and running threads of one daemon.
#[derive(Debug, Default)]
pub struct Live {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    stopping: bool,
    /// Weak: whoever uses a socket closes it by dropping it; entries of closed ones go when room is needed.
    sockets: Vec<Weak<TcpStream>>,
    threads: Vec<JoinHandle<()>>,
}

impl Live {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change is one call, so a panic elsewhere leaves nothing half done.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps `socket` in view until its last user drops it, so that [`Live::stop`] can shut it down. Connections
    /// that are still being made belong here, too.
    ///
    /// # Errors
    /// `ConnectionAborted` if the daemon is being stopped.
    pub fn add(&self, socket: TcpStream) -> io::Result<Arc<TcpStream>> {
        let mut inner = self.lock();
        if inner.stopping {
            return Err(ErrorKind::ConnectionAborted.into());
        }
        if inner.sockets.len() == inner.sockets.capacity() {
            inner.sockets.retain(|socket| socket.strong_count() > 0);
        }
        let socket = Arc::new(socket);
        inner.sockets.push(Arc::downgrade(&socket));
        Ok(socket)
    }

    /// Starts a thread with a small stack, which [`Live::stop`] waits for. It must end soon after its sockets
    /// were shut down.
    ///
    /// # Errors
    /// `ConnectionAborted` if the daemon is being stopped; else what the system says.
    pub fn spawn(&self, name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let mut inner = self.lock();
        if inner.stopping {
            return Err(ErrorKind::ConnectionAborted.into());
        }
        for ended in inner.threads.extract_if(.., |thread| thread.is_finished()) {
            join(ended);
        }
        let thread = Builder::new().name(name.into()).stack_size(STACK_BYTES).spawn(work)?;
        inner.threads.push(thread);
        Ok(())
    }

    /// Whether [`Live::stop`] was called.
    pub fn is_stopping(&self) -> bool {
        self.lock().stopping
    }

    /// Shuts down every connection, and waits for every thread. Nothing can be added any more.
    pub fn stop(&self) {
        let sockets = {
            let mut inner = self.lock();
            inner.stopping = true;
            core::mem::take(&mut inner.sockets)
        };
        for socket in sockets.iter().filter_map(Weak::upgrade) {
            let _ = socket.shutdown(Shutdown::Both); // an error means that it is closed already
        }
        let threads = core::mem::take(&mut self.lock().threads);
        threads.into_iter().for_each(join);
    }
}

fn join(thread: JoinHandle<()>) {
    if thread.join().is_err() {
        log::error!("a thread panicked; only its connection is lost");
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn stop_ends_connections_and_threads_and_nothing_starts_afterwards() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let live = Live::default();
        let mut threads = Vec::new();
        for _ in 0..5 {
            let socket = live.add(TcpStream::connect(listener.local_addr().unwrap()).unwrap()).unwrap();
            let ended = Arc::new(());
            threads.push(Arc::downgrade(&ended));
            live.spawn("test", move || {
                let _ended = ended;
                assert_eq!((&*socket).read(&mut [0; 1]).unwrap(), 0);
            })
            .unwrap();
        }
        live.stop();
        assert!(threads.iter().all(|thread| thread.upgrade().is_none()));
        assert!(live.is_stopping());
        let late = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(live.add(late).unwrap_err().kind(), ErrorKind::ConnectionAborted);
        assert!(live.spawn("late", || ()).is_err());
    }

    #[test]
    fn entries_of_closed_sockets_do_not_pile_up() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let live = Live::default();
        for _ in 0..100 {
            drop(live.add(TcpStream::connect(listener.local_addr().unwrap()).unwrap()).unwrap());
        }
        assert!(live.lock().sockets.len() < 10);
    }
}
