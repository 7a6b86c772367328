//! SIGTERM, SIGINT and SIGHUP as something to wait for, so that the daemon can write down what it still has in memory, or
//! read its configuration again. Not responsible for what follows. std has no signals; these two calls are the whole of
//! it.

use std::io;
use std::mem::MaybeUninit;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM or SIGINT: the end.
    Stop,
    /// SIGHUP: to read the configuration again.
    Reload,
}

/// The signals to the daemon, held back from all threads that are started from now on.
#[derive(Debug)]
pub struct Signals(libc::sigset_t);

impl Signals {
    /// Holds them back in this thread and those that it starts: to be called before there are others.
    ///
    /// # Errors
    /// What the system says.
    pub fn hold_back() -> io::Result<Signals> {
        let mut set = MaybeUninit::uninit();
        // SAFETY: `sigemptyset` initialises the set that it is given, the other calls are given that one and nothing else
        // that is read or written.
        let (set, error) = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            libc::sigaddset(set.as_mut_ptr(), libc::SIGTERM);
            libc::sigaddset(set.as_mut_ptr(), libc::SIGINT);
            libc::sigaddset(set.as_mut_ptr(), libc::SIGHUP);
            let set = set.assume_init();
            (set, libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()))
        };
        if error == 0 { Ok(Signals(set)) } else { Err(io::Error::from_raw_os_error(error)) }
    }

    /// Waits for one of them.
    ///
    /// # Errors
    /// What the system says.
    pub fn wait(&self) -> io::Result<Signal> {
        let mut signal = 0;
        // SAFETY: both are valid for the call, and nothing else is read or written.
        let error = unsafe { libc::sigwait(&self.0, &mut signal) };
        match (error, signal) {
            (0, libc::SIGHUP) => Ok(Signal::Reload),
            (0, _) => Ok(Signal::Stop),
            (error, _) => Err(io::Error::from_raw_os_error(error)),
        }
    }
}
