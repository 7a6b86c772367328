//! The owner's way to a running daemon: a Unix socket in `state_dir` that only its owner can open. One line asks, the
//! answer is a line that says `ok` or what is wrong, then what was asked for. Not responsible for what is shown
//! ([`crate::status::views`]).
//!
//! ```text
//! status | peers | trust [--json]
//! trust forget PEER
//! heard                            # a line for each router that is heard, for bamqp peers approve
//! ```
//!
//! One thread serves one request after the other. Between them it does what else takes no thread of its own: it sees to it
//! that trust records are written, and hears and sends announcements ([`crate::discover`]).

use core::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bamqp_core::discover::Heard;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::approve::Candidate;
use crate::daemon::{Hub, Shared};
use crate::net::{self, PollFd, PollFlags, Waker};
use crate::status::document::Document;
use crate::status::views;

/// The socket's name in `state_dir`.
pub const SOCKET: &str = "control";

/// Longest request, in bytes.
const MAX_REQUEST: usize = 256;

/// How long an owner's program may take to ask or to read the answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often trust records are looked after.
const TICK: Duration = Duration::from_secs(60);

/// The daemon's end.
#[derive(Debug)]
pub struct Control {
    /// `None` if there is no `state_dir`, or another daemon uses it.
    listener: Option<(UnixListener, PathBuf)>,
    stop: Waker,
}

impl Control {
    /// Listens in `state_dir`, if that exists. That nobody can ask is no reason not to work: it is logged.
    ///
    /// # Errors
    /// If the process has no descriptors left.
    pub fn open(state_dir: &Path) -> io::Result<Control> {
        let path = state_dir.join(SOCKET);
        let listener = match state_dir.is_dir().then(|| listen(&path)) {
            None => None,
            Some(Ok(listener)) => Some((listener, path)),
            Some(Err(error)) => {
                log::warn!("{}: {error}; bamqp status will not work", path.display());
                None
            }
        };
        Ok(Control { listener, stop: Waker::new()? })
    }

    /// Ends [`Control::run`].
    pub fn stop(&self) {
        self.stop.poke();
    }

    /// Answers until [`Control::stop`].
    pub fn run(&self, hub: &Hub) {
        let discovery = hub.current().discovery.clone();
        loop {
            let wait = discovery.wait();
            let mut fds = vec![PollFd::new(&self.stop, PollFlags::IN)];
            fds.extend(self.listener.iter().map(|(listener, _)| PollFd::new(listener, PollFlags::IN)));
            fds.push(PollFd::new(discovery.changed(), PollFlags::IN));
            fds.extend(wait.ear.iter().map(|ear| PollFd::new(&**ear, PollFlags::IN)));
            let tick = Instant::now() + TICK;
            if net::poll(&mut fds, Some(wait.until.map_or(tick, |until| until.min(tick)))).is_err() {
                break;
            }
            let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
            if ready.next() == Some(true) {
                break;
            }
            if ready.next() == Some(true)
                && let Some((listener, _)) = &self.listener
                && let Ok((socket, _)) = listener.accept()
            {
                // Whoever asked may be gone by now.
                let _ = serve(&hub.current(), &socket);
            }
            let shared = hub.current();
            shared.trust.tick();
            shared.usage.tick();
            discovery.tick();
        }
        if let Some((_, path)) = &self.listener {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Listens at `path`, for the file's owner alone from the first moment on.
fn listen(path: &Path) -> io::Result<UnixListener> {
    if UnixStream::connect(path).is_ok() {
        return Err(io::Error::new(ErrorKind::AddrInUse, "another bamqp runs with this state_dir"));
    }
    let _ = std::fs::remove_file(path); // left by one that was killed
    let socket: OwnedFd =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    rustix::net::listen(&socket, 4)?;
    let listener = UnixListener::from(socket);
    listener.set_nonblocking(true)?; // one that hung up before it was accepted must not stop the others
    Ok(listener)
}

fn serve(shared: &Shared, mut socket: &UnixStream) -> io::Result<()> {
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    let request = read_line(socket)?;
    match answer(shared, &request) {
        Ok(text) => socket.write_all(format!("ok\n{text}").as_bytes()),
        Err(what) => socket.write_all(format!("{what}\n").as_bytes()),
    }
}

/// The bytes up to the first line end, at most [`MAX_REQUEST`] and not for ever.
fn read_line(mut socket: &UnixStream) -> io::Result<String> {
    let deadline = Instant::now() + PATIENCE;
    let mut line = Vec::new();
    let mut buffer = [0; MAX_REQUEST];
    while line.len() < MAX_REQUEST && !line.contains(&b'\n') {
        let count = socket.read(&mut buffer)?;
        line.extend_from_slice(buffer.get(..count).unwrap_or_default());
        if count == 0 || Instant::now() > deadline {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    Ok(String::from_utf8_lossy(line).into_owned())
}

fn answer(shared: &Shared, request: &str) -> Result<String, String> {
    if let Some(peer) = request.strip_prefix("trust forget ") {
        let forgotten = shared.trust.forget(peer);
        let name = forgotten.ok_or_else(|| format!("no peer {peer}; bamqp trust lists them"))?;
        return Ok(format!("{name} is a newcomer now\n"));
    }
    if request == "heard" {
        return Ok(heard(shared));
    }
    let (what, is_json) = match request.strip_suffix(" --json") {
        Some(what) => (what, true),
        None => (request, false),
    };
    let document: Document = match what {
        "status" => views::status(shared),
        "peers" => views::peers(shared),
        "trust" => views::trust(shared),
        _ => return Err("expected status, peers, trust or trust forget PEER".into()),
    };
    Ok(if is_json { document.json() } else { document.text() })
}

fn heard(shared: &Shared) -> String {
    let candidate = |Heard { name, public_key, address, .. }: Heard| Candidate { name, public_key, address };
    shared.discovery.heard().into_iter().map(|one| format!("{}\n", candidate(one))).collect()
}

/// Why there is no answer from the daemon.
#[derive(Debug)]
pub enum AskError {
    /// Nobody can be asked there.
    NoDaemon(PathBuf, io::Error),
    /// It ended before it had answered.
    Broken(io::Error),
    /// What it says is wrong with the request.
    Refused(String),
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDaemon(path, error) => write!(f, "no daemon answers at {}: {error}", path.display()),
            Self::Broken(error) => write!(f, "the daemon did not answer: {error}"),
            Self::Refused(what) => f.write_str(what),
        }
    }
}

impl core::error::Error for AskError {}

/// Asks the daemon that runs with this `state_dir`.
///
/// # Errors
/// [`AskError`].
pub fn ask(state_dir: &Path, request: &str) -> Result<String, AskError> {
    let path = state_dir.join(SOCKET);
    let mut socket = UnixStream::connect(&path).map_err(|error| AskError::NoDaemon(path, error))?;
    let mut answer = String::new();
    socket
        .set_read_timeout(Some(PATIENCE * 3))
        .and_then(|()| socket.write_all(format!("{request}\n").as_bytes()))
        .and_then(|()| socket.read_to_string(&mut answer))
        .map_err(AskError::Broken)?;
    match answer.split_once('\n') {
        Some(("ok", text)) => Ok(text.into()),
        Some((what, _)) => Err(AskError::Refused(what.into())),
        None => Err(AskError::Broken(ErrorKind::UnexpectedEof.into())),
    }
}
