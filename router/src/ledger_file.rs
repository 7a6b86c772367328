//! The daemon's ledger: who asked this router to fetch what, written down before it is fetched, and what it asked others
//! to fetch. Not responsible for what a line looks like ([`bamqp_core::ledger`]).
//!
//! Entries wait in memory, because flash wears: they are written every [`FLUSH_EVERY`], every [`FLUSH_BYTES`], and when
//! the daemon stops. A power cut costs what waited, never the chain. If nothing can be written for long, nothing more
//! is fetched for others.

mod folder;
mod waiting;

use core::fmt;
use core::net::SocketAddr;
use core::ops::Range;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use bamqp_core::ledger::{Event, Hash, InitEvent, List, Text};
use bamqp_core::message::{Fingerprint, SessionId};

use self::folder::Folder;
use self::waiting::{Part, Waiting};
use crate::clock;
use crate::config::Config;
use crate::keys::PublicKey;
use crate::live::STACK_BYTES;

pub use self::folder::next_line;

/// Longest time that an entry waits in memory.
pub const FLUSH_EVERY: Duration = Duration::from_secs(10 * 60);

/// Bytes of waiting entries that are written at once.
pub const FLUSH_BYTES: usize = 16 * 1024;

/// Bytes of waiting entries above which none is taken any more: they can't be written.
pub const MAX_WAITING: usize = 64 * 1024;

/// How long to wait after a write failed.
const RETRY_AFTER: Duration = Duration::from_secs(30);

/// The fields that would make an INIT carry a household's secrets.
const CREDENTIALS: [&str; 3] = ["Authorization", "Proxy-Authorization", "Cookie"];

/// The ledger of a running daemon; all its threads may append.
#[derive(Debug)]
pub struct Ledger {
    shared: Arc<Shared>,
    flusher: Mutex<Option<JoinHandle<()>>>,
}

/// Another router's INIT that is going to be worked for.
#[derive(Clone, Copy, Debug)]
pub struct InitRecord<'a> {
    /// The coordinator's public key.
    pub key: &'a PublicKey,
    /// Where it connected from.
    pub from: SocketAddr,
    /// The session.
    pub session: SessionId,
    /// Bytes of the whole file.
    pub size: u64,
    /// The file.
    pub uri: &'a str,
    /// The message's head as it came, up to its empty line, signatures included.
    pub head: &'a [u8],
}

/// A pooled download of the own household.
#[derive(Clone, Copy, Debug)]
pub struct SessionRecord<'a> {
    /// The session.
    pub session: SessionId,
    /// Bytes of the whole file.
    pub size: u64,
    /// The bytes that were pooled.
    pub range: &'a Range<u64>,
    /// The file.
    pub uri: &'a str,
    /// Who took part, each with the head of its ledger that our INIT countersigned.
    pub peers: &'a [(Fingerprint, [u8; 32])],
}

/// Why there is no ledger.
#[derive(Debug)]
pub enum OpenError {
    /// Another daemon writes in this folder.
    InUse(PathBuf),
    /// What the system says about the folder or a file in it.
    Io(PathBuf, io::Error),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse(path) => write!(f, "log_dir {}: another bamqp writes its log there", path.display()),
            Self::Io(path, error) => write!(f, "log_dir {}: {error}", path.display()),
        }
    }
}

impl core::error::Error for OpenError {}

/// Why an entry was not taken. What it is about must not be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendError {
    /// Too much waits to be written: the disk is full or broken.
    Full,
    /// The daemon is being stopped.
    Stopped,
    /// It has a field that would put credentials into the log.
    Credentials,
}

impl fmt::Display for AppendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "the log can't be written",
            Self::Stopped => "the log is closed",
            Self::Credentials => "the message carries credentials",
        })
    }
}

impl core::error::Error for AppendError {}

#[derive(Debug)]
struct Shared {
    log_dir: PathBuf,
    log_files: usize,
    waiting: Mutex<Waiting>,
    /// Wakes the thread that writes.
    wake: Condvar,
    /// Locked while something is written; without `waiting`, so that nobody waits for the flash.
    files: Mutex<Files>,
}

#[derive(Debug)]
struct Files {
    /// `None` after the end: another daemon may have it.
    folder: Option<Folder>,
    current: Option<(u64, File)>,
}

impl Ledger {
    /// Opens the ledger in `log_dir` and appends that the router with this key was started. The folder is made if need
    /// be; what a power cut left of an entry is cut off.
    ///
    /// # Errors
    /// [`OpenError`]; nothing may be fetched for others then.
    pub fn open(config: &Config, key: &PublicKey) -> Result<Ledger, OpenError> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::WouldBlock => OpenError::InUse(config.log_dir.clone()),
            _ => OpenError::Io(config.log_dir.clone(), error),
        };
        let folder = Folder::open(&config.log_dir).map_err(failed)?;
        let found = folder.recover().map_err(failed)?;
        let waiting = Waiting::new(found, *key, clock::boot_id(), config.log_size);
        let shared = Arc::new(Shared {
            log_dir: config.log_dir.clone(),
            log_files: config.log_files.into(),
            waiting: Mutex::new(waiting),
            wake: Condvar::new(),
            files: Mutex::new(Files { folder: Some(folder), current: None }),
        });
        let flusher = {
            let shared = shared.clone();
            let thread = Builder::new().name("ledger".into()).stack_size(STACK_BYTES);
            thread.spawn(move || shared.flush_until_stopped()).map_err(failed)?
        };
        Ok(Ledger { shared, flusher: Mutex::new(Some(flusher)) })
    }

    /// The hash of the last entry. It pins all entries before: a challenge begins with it.
    pub fn head(&self) -> [u8; 32] {
        self.shared.lock().head().0
    }

    /// How many boots of the router this ledger has seen, with this one.
    pub fn boot(&self) -> u32 {
        self.shared.lock().boot()
    }

    /// Whether entries are taken now: not if what waits can't be written, nor after the end.
    pub fn takes_entries(&self) -> bool {
        self.shared.lock().may_append().is_ok()
    }

    /// Before anything is fetched in a session of another router; the ledger's new head.
    ///
    /// # Errors
    /// [`AppendError`]: it must not be fetched.
    pub fn append_init(&self, init: &InitRecord<'_>) -> Result<[u8; 32], AppendError> {
        // By lines, since parsing the head once more would take a good part of a small stack.
        let mut names =
            init.head.split(|byte| *byte == b'\n').filter_map(|line| line.split(|byte| *byte == b':').next());
        if names.any(|name| CREDENTIALS.iter().any(|secret| name.eq_ignore_ascii_case(secret.as_bytes()))) {
            return Err(AppendError::Credentials);
        }
        self.append(Event::Init(InitEvent {
            key: *init.key,
            from: init.from,
            session: init.session,
            size: init.size,
            uri: Text::Plain(init.uri.as_bytes()),
            head: Text::Plain(init.head),
        }))
    }

    /// Before these bytes of a session's file are fetched. Several ranges become one entry, at the latest when what
    /// waits is written.
    ///
    /// # Errors
    /// [`AppendError`]: they must not be fetched.
    pub fn append_chunk(&self, session: SessionId, range: Range<u64>) -> Result<(), AppendError> {
        let mut waiting = self.shared.lock();
        waiting.may_append()?;
        waiting.chunk(session, range);
        self.shared.wake_if_much(&waiting);
        Ok(())
    }

    /// Another router's session is over: the ranges that were fetched in it become an entry.
    pub fn end_session(&self, session: SessionId) {
        let mut waiting = self.shared.lock();
        waiting.seal(session);
        self.shared.wake_if_much(&waiting);
    }

    /// At the end of a pooled download of the own household; the ledger's new head.
    ///
    /// # Errors
    /// [`AppendError`].
    pub fn append_session(&self, session: &SessionRecord<'_>) -> Result<[u8; 32], AppendError> {
        let peers: Vec<_> = session.peers.iter().map(|(peer, head)| (*peer, Hash(*head))).collect();
        self.append(Event::Session {
            session: session.session,
            size: session.size,
            range: session.range.clone(),
            uri: Text::Plain(session.uri.as_bytes()),
            peers: List::Plain(&peers),
        })
    }

    fn append(&self, event: Event<'_>) -> Result<[u8; 32], AppendError> {
        let mut waiting = self.shared.lock();
        waiting.may_append()?;
        let hash = waiting.append(event);
        self.shared.wake_if_much(&waiting);
        Ok(hash.0)
    }

    /// Writes all that waits, and waits until the disk has it.
    ///
    /// # Errors
    /// What the system says; the entries go on waiting.
    pub fn flush(&self) -> io::Result<()> {
        self.shared.flush()
    }

    /// Writes all that waits and takes no more. Another daemon may use the folder then.
    pub fn stop(&self) {
        self.shared.lock().is_stopping = true;
        self.shared.wake.notify_all();
        let flusher = self.flusher.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(flusher) = flusher {
            let _ = flusher.join();
        }
        let mut files = self.shared.lock_files();
        (files.folder, files.current) = (None, None);
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // An entry is made before anything is changed, so a panic leaves nothing half done.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake_if_much(&self, waiting: &Waiting) {
        if waiting.bytes() >= FLUSH_BYTES {
            self.wake.notify_all();
        }
    }

    fn flush_until_stopped(&self) {
        let mut has_failed = false;
        loop {
            let waiting = self.lock();
            let pause = if has_failed { RETRY_AFTER } else { FLUSH_EVERY };
            let may_wait = |w: &mut Waiting| !w.is_stopping && (has_failed || w.bytes() < FLUSH_BYTES);
            let woken = self.wake.wait_timeout_while(waiting, pause, may_wait);
            let is_stopping = woken.unwrap_or_else(PoisonError::into_inner).0.is_stopping;
            let flushed = self.flush();
            if let Err(error) = &flushed {
                log::error!("log_dir {}: {error}", self.log_dir.display());
            }
            has_failed = flushed.is_err();
            if is_stopping {
                return;
            }
        }
    }

    fn flush(&self) -> io::Result<()> {
        let mut files = self.lock_files();
        let parts = self.lock().parts();
        for part in &parts {
            files.write(part, self.log_files)?;
            self.lock().written(part);
        }
        Ok(())
    }
}

impl Files {
    fn write(&mut self, part: &Part, most: usize) -> io::Result<()> {
        let folder = self.folder.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        let current = self.current.take().filter(|(first, _)| *first == part.first);
        let (first, file) = match current {
            Some(current) => current,
            None => {
                let file = folder.open_file(part.first)?;
                folder.keep(most)?;
                (part.first, file)
            }
        };
        // At its place, so that trying again overwrites what a failed write has left.
        file.write_all_at(part.text.as_bytes(), part.at)?;
        file.sync_data()?;
        self.current = Some((first, file));
        Ok(())
    }
}
