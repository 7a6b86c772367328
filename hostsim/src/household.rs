//! The households behind the routers: one that downloads, and what each router's kernel would count of its line. Not
//! responsible for the line itself; all that comes over it is paced together ([`crate::link`]).

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bamqp_router::net;

use crate::flow::SEGMENT;
use crate::origin::Origin;

/// The name of every router's interface to the internet.
pub const INTERFACE: &str = "wan";

/// What a packet has besides its payload.
const HEADERS: u64 = 66;

/// How often lines are metered: more often than routers look.
const EVERY: Duration = Duration::from_millis(10);

/// How long a household is given to get its line.
const WITHIN: Duration = Duration::from_secs(1);

/// How long it must have had it before that is judged.
const JUDGED_OVER: Duration = Duration::from_millis(200);

const PATIENCE: Duration = Duration::from_secs(5);

/// Keeps a file for each router that reads like `/proc/net/dev`.
pub struct Meter {
    files: PathBuf,
    stopping: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Meter {
    /// Meters the lines of these addresses from now on.
    pub fn start(
        files: &Path,
        routers: impl Iterator<Item = IpAddr>,
        origin: Arc<Origin>,
    ) -> io::Result<Meter> {
        fs::create_dir_all(files)?;
        let stopping = Arc::new(AtomicBool::new(false));
        let meter = Meter { files: files.into(), stopping: stopping.clone(), thread: Mutex::default() };
        let lines = routers.enumerate().map(|(number, ip)| Ok((ip, File::create(meter.file(number))?)));
        let lines: Vec<(IpAddr, File)> = lines.collect::<io::Result<_>>()?;
        write(&lines, &origin)?;
        let thread = thread::Builder::new().name("meter".into()).spawn(move || {
            while !stopping.load(Ordering::Relaxed) && write(&lines, &origin).is_ok() {
                thread::sleep(EVERY);
            }
        })?;
        *meter.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(meter)
    }

    /// The file of router `number`.
    pub fn file(&self, number: usize) -> PathBuf {
        self.files.join(format!("wan-{number}"))
    }

    /// Ends it.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = thread.join();
        }
    }
}

fn write(lines: &[(IpAddr, File)], origin: &Origin) -> io::Result<()> {
    for (ip, file) in lines {
        let payload = origin.sent_to(*ip);
        let packets = payload.div_ceil(SEGMENT);
        // Always as long, so that whoever reads meanwhile sees a whole line, the old or the new.
        let line = format!("{INTERFACE:>6}: {:20} {packets:20} 0 0\n", payload + packets * HEADERS);
        file.write_all_at(line.as_bytes(), 0)?;
    }
    Ok(())
}

/// Somebody who downloads without end; dropped, no longer.
pub struct Household {
    began: Instant,
    /// Bytes so far, and those of them that came before [`WITHIN`].
    came: Arc<[AtomicU64; 2]>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Household {
    /// Downloads from `origin` over the line of the router at `from`.
    pub fn wake(origin: SocketAddr, from: IpAddr) -> Household {
        let (began, came, stopping) =
            (Instant::now(), Arc::<[AtomicU64; 2]>::default(), Arc::<AtomicBool>::default());
        let (counts, stop) = (came.clone(), stopping.clone());
        let thread = thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                if download(origin, from, began, &counts, &stop).is_err() {
                    thread::sleep(EVERY); // its line is dead
                }
            }
        });
        Household { began, came, stopping, thread: Some(thread) }
    }

    /// Bytes per second from a second on, if that was long enough ago.
    pub fn rate(&self) -> Option<f64> {
        let took = self.began.elapsed().checked_sub(WITHIN).filter(|took| *took >= JUDGED_OVER)?;
        let [all, before] = self.came.each_ref().map(|count| count.load(Ordering::Relaxed));
        Some((all - before.min(all)) as f64 / took.as_secs_f64())
    }
}

impl Drop for Household {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn download(
    origin: SocketAddr,
    from: IpAddr,
    began: Instant,
    [all, before]: &[AtomicU64; 2],
    stop: &AtomicBool,
) -> io::Result<()> {
    let mut socket = net::connect(origin, Some(from), Instant::now() + PATIENCE)?;
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    socket.write_all(
        format!("GET /household HTTP/1.1\r\nHost: {origin}\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut buffer = vec![0; 64 * 1024];
    while !stop.load(Ordering::Relaxed) {
        match socket.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(bytes) => {
                let so_far = all.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
                if began.elapsed() < WITHIN {
                    before.store(so_far, Ordering::Relaxed);
                }
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
