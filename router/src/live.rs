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

#[derive(Debug)]
struct Inner {
    stopping: bool,
    /// Most threads at a time.
    most: usize,
    /// Weak: whoever uses a socket closes it by dropping it; entries of closed ones go when room is needed.
    sockets: Vec<Weak<TcpStream>>,
    threads: Vec<JoinHandle<()>>,
}

impl Default for Inner {
    fn default() -> Self {
        Inner { stopping: false, most: usize::MAX, sockets: Vec::new(), threads: Vec::new() }
    }
}

impl Live {
    /// From now on there are at most so many threads at a time; those that run go on.
    pub fn limit(&self, threads: usize) {
        self.lock().most = threads;
    }

    /// Shuts down the connections for which `is_meant` says so.
    pub fn cut(&self, is_meant: impl Fn(&TcpStream) -> bool) {
        let sockets = self.lock().sockets.clone();
        for socket in sockets.iter().filter_map(Weak::upgrade).filter(|socket| is_meant(socket)) {
            let _ = socket.shutdown(Shutdown::Both); // an error means that it is closed already
        }
    }

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
    /// `ConnectionAborted` if the daemon is being stopped, `OutOfMemory` if there are as many as there may be; else what
    /// the system says.
    pub fn spawn(&self, name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let mut inner = self.lock();
        if inner.stopping {
            return Err(ErrorKind::ConnectionAborted.into());
        }
        for ended in inner.threads.extract_if(.., |thread| thread.is_finished()) {
            join(ended);
        }
        if inner.threads.len() >= inner.most {
            return Err(ErrorKind::OutOfMemory.into());
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
    fn no_more_threads_than_there_may_be() {
        let live = Live::default();
        live.limit(2);
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let wait = Arc::new(Mutex::new(wait));
        let spawn = || {
            let wait = wait.clone();
            live.spawn("test", move || assert!(wait.lock().unwrap().recv().is_err()))
        };
        spawn().unwrap();
        spawn().unwrap();
        assert_eq!(spawn().unwrap_err().kind(), ErrorKind::OutOfMemory);
        live.limit(3);
        spawn().unwrap();
        drop(go);
        live.stop();
    }

    #[test]
    fn only_what_is_meant_is_cut() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let live = Live::default();
        let connect = || live.add(TcpStream::connect(listener.local_addr().unwrap()).unwrap()).unwrap();
        let (one, two) = (connect(), connect());
        let meant = two.local_addr().unwrap();
        live.cut(|socket| socket.local_addr().is_ok_and(|address| address == meant));
        assert_eq!((&*two).read(&mut [0; 1]).unwrap(), 0);
        one.set_nonblocking(true).unwrap();
        assert_eq!((&*one).read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock);
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
