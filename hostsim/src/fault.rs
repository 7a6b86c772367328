//! What goes wrong in a run, and when: the grammar of `--fault`, and the thread that makes timed faults
//! happen. Not responsible for how they happen: timed ones are the runner's to do, the origin's misbehaviour is
//! the origin's.

use std::fmt;
use std::str::FromStr;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// One fault. Routers are numbered: 0 is the coordinator with its own link, 1.. the peers.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// The router's daemon is stopped; of the coordinator (0) its own link dies.
    Kill {
        /// Which router.
        router: usize,
        /// When, after the pooled download's request.
        at: Duration,
    },
    /// No byte comes over the router's link any more; its connections stay.
    Stall {
        /// Which router.
        router: usize,
        /// When, after the pooled download's request.
        at: Duration,
    },
    /// The router's link gets another rate.
    Slow {
        /// Which router.
        router: usize,
        /// When, after the pooled download's request.
        at: Duration,
        /// What the rate is multiplied by: above 0, at most 100.
        factor: f64,
    },
    /// Somebody in the router's household downloads from then on, over the same link.
    Busy {
        /// Which router, a peer.
        router: usize,
        /// When, after the pooled download's request.
        at: Duration,
    },
    /// Answers to the router's range requests are shorter than their Content-Range says.
    CorruptLength {
        /// Which router.
        router: usize,
    },
    /// Answers to the router's range requests are of another range than the one asked for.
    WrongRange {
        /// Which router.
        router: usize,
    },
    /// The file and its ETag change at the origin.
    Change {
        /// When, after the pooled download's request.
        at: Duration,
    },
    /// The URL is good for one request; later ones get 403.
    OneShot,
    /// The origin serves that many connections of a source address; further ones get 503.
    PerIpLimit {
        /// Connections per source address, at least 1.
        connections: usize,
    },
    /// All that the origin serves to the router is altered from the first byte to the last: to the coordinator it lies.
    Lie {
        /// Which router, a peer.
        router: usize,
    },
    /// The same, for one chunk only, which is not the first.
    LieOnce {
        /// Which router, a peer.
        router: usize,
    },
    /// The origin serves different bytes under the same ETag and length, by source address.
    Variant {
        /// How many variants: router i gets number i modulo it, at least 2. `None`: each router its own.
        count: Option<usize>,
    },
}

/// Which of `count` variants router `number` gets; number 0 is the file as it is.
pub fn variant_of(number: usize, count: Option<usize>) -> usize {
    count.map_or(number, |count| number % count.max(1))
}

/// Why a `--fault` was not understood: a line that says what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultError(String);

impl fmt::Display for FaultError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for FaultError {}

/// The name of router `number` in all output: A is the coordinator, B, C, D… are the peers.
pub fn router_name(number: usize) -> String {
    match u8::try_from(number) {
        Ok(n) if n < 26 => char::from(b'A' + n).to_string(),
        _ => format!("R{number}"),
    }
}

impl Fault {
    /// What all faults look like, in one line.
    pub const FORMS: &str = "kill:N@T, stall:N@T, slow:N@TxF, busy:N@T, corrupt-length:N, wrong-range:N, change:@T, one-shot, \
         per-ip-limit:K, lie:N, lie-once:N, variant or variant:K (N: 0 or A = own link, 1 or B = first peer…; \
         T: 1.5s or 300ms; F: 0.1; K: 1, 2…)";

    /// When it happens, for those that happen at a moment.
    pub fn at(&self) -> Option<Duration> {
        match *self {
            Fault::Kill { at, .. } | Fault::Stall { at, .. } => Some(at),
            Fault::Slow { at, .. } | Fault::Busy { at, .. } | Fault::Change { at } => Some(at),
            Fault::CorruptLength { .. } | Fault::WrongRange { .. } => None,
            Fault::OneShot | Fault::PerIpLimit { .. } => None,
            Fault::Lie { .. } | Fault::LieOnce { .. } | Fault::Variant { .. } => None,
        }
    }

    /// The router that is made a liar, if one is.
    pub fn liar(&self) -> Option<usize> {
        match *self {
            Fault::Lie { router } | Fault::LieOnce { router } => Some(router),
            _ => None,
        }
    }

    /// The router that it hits, if it hits one.
    pub fn router(&self) -> Option<usize> {
        match *self {
            Fault::Kill { router, .. } | Fault::Stall { router, .. } | Fault::Slow { router, .. } => {
                Some(router)
            }
            Fault::Busy { router, .. } => Some(router),
            Fault::CorruptLength { router } | Fault::WrongRange { router } => Some(router),
            Fault::Lie { router } | Fault::LieOnce { router } => Some(router),
            Fault::Change { .. } | Fault::OneShot | Fault::PerIpLimit { .. } | Fault::Variant { .. } => None,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |at: &Duration| format!("{}s", at.as_secs_f64());
        match self {
            Fault::Kill { router, at } => write!(f, "kill:{}@{}", router_name(*router), seconds(at)),
            Fault::Stall { router, at } => write!(f, "stall:{}@{}", router_name(*router), seconds(at)),
            Fault::Slow { router, at, factor } => {
                write!(f, "slow:{}@{}x{factor}", router_name(*router), seconds(at))
            }
            Fault::Busy { router, at } => write!(f, "busy:{}@{}", router_name(*router), seconds(at)),
            Fault::CorruptLength { router } => write!(f, "corrupt-length:{}", router_name(*router)),
            Fault::WrongRange { router } => write!(f, "wrong-range:{}", router_name(*router)),
            Fault::Change { at } => write!(f, "change:@{}", seconds(at)),
            Fault::OneShot => f.write_str("one-shot"),
            Fault::PerIpLimit { connections } => write!(f, "per-ip-limit:{connections}"),
            Fault::Lie { router } => write!(f, "lie:{}", router_name(*router)),
            Fault::LieOnce { router } => write!(f, "lie-once:{}", router_name(*router)),
            Fault::Variant { count: Some(count) } => write!(f, "variant:{count}"),
            Fault::Variant { count: None } => f.write_str("variant"),
        }
    }
}

impl FromStr for Fault {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Fault, FaultError> {
        let parsed = match text.split_once(':') {
            Some(("kill", rest)) => router_and_time(rest).map(|(router, at)| Fault::Kill { router, at }),
            Some(("stall", rest)) => router_and_time(rest).map(|(router, at)| Fault::Stall { router, at }),
            Some(("slow", rest)) => slow(rest),
            // The coordinator's household is the client.
            Some(("busy", rest)) => {
                let parsed = router_and_time(rest).filter(|(router, _)| *router > 0);
                parsed.map(|(router, at)| Fault::Busy { router, at })
            }
            Some(("corrupt-length", rest)) => router(rest).map(|router| Fault::CorruptLength { router }),
            Some(("wrong-range", rest)) => router(rest).map(|router| Fault::WrongRange { router }),
            Some(("change", rest)) => rest.strip_prefix('@').and_then(time).map(|at| Fault::Change { at }),
            Some(("per-ip-limit", rest)) => {
                count(rest).filter(|k| *k > 0).map(|connections| Fault::PerIpLimit { connections })
            }
            // The own link is whom the others are compared with.
            Some(("lie", rest)) => router(rest).filter(|n| *n > 0).map(|router| Fault::Lie { router }),
            Some(("lie-once", rest)) => {
                router(rest).filter(|n| *n > 0).map(|router| Fault::LieOnce { router })
            }
            Some(("variant", rest)) => {
                count(rest).filter(|k| *k > 1).map(|count| Fault::Variant { count: Some(count) })
            }
            None if text == "one-shot" => Some(Fault::OneShot),
            None if text == "variant" => Some(Fault::Variant { count: None }),
            _ => None,
        };
        parsed.ok_or_else(|| FaultError(format!("--fault {text}: expected {}", Fault::FORMS)))
    }
}

fn router_and_time(text: &str) -> Option<(usize, Duration)> {
    let (number, at) = text.split_once('@')?;
    Some((router(number)?, time(at)?))
}

fn slow(text: &str) -> Option<Fault> {
    let (rest, factor) = text.rsplit_once('x')?;
    let (router, at) = router_and_time(rest)?;
    let factor = decimal(factor).filter(|f| *f > 0.0 && *f <= 100.0)?;
    Some(Fault::Slow { router, at, factor })
}

/// The router that `2` or `C` means.
pub(crate) fn router_number(text: &str) -> Option<usize> {
    router(text)
}

/// `2` or `C`.
fn router(text: &str) -> Option<usize> {
    match text.as_bytes() {
        [letter] if letter.is_ascii_alphabetic() => Some(usize::from(letter.to_ascii_uppercase() - b'A')),
        _ => count(text),
    }
}

fn count(text: &str) -> Option<usize> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Digits with at most one point: what people write, without the signs and exponents that `f64` also takes.
pub(crate) fn decimal(text: &str) -> Option<f64> {
    let plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    (plain && !text.is_empty()).then(|| text.parse().ok()).flatten()
}

/// `1.5s`, `300ms`, or seconds without a unit; at most a day.
fn time(text: &str) -> Option<Duration> {
    let (number, unit) = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(number), _) => (number, 0.001),
        (None, Some(number)) => (number, 1.0),
        (None, None) => (text, 1.0),
    };
    let seconds = decimal(number)? * unit;
    (seconds <= 86_400.0).then(|| Duration::from_secs_f64(seconds))
}

/// Makes the timed faults happen, in their order, on a thread of its own.
pub struct Injector {
    cancel: mpsc::Sender<()>,
    thread: JoinHandle<Vec<Fault>>,
}

impl Injector {
    /// From now on, calls `act` with each fault that has a time when that time has come.
    pub fn start(faults: &[Fault], mut act: impl FnMut(&Fault) + Send + 'static) -> Injector {
        let begun = Instant::now();
        let mut timed: Vec<(Duration, Fault)> =
            faults.iter().filter_map(|fault| Some((fault.at()?, fault.clone()))).collect();
        timed.sort_by_key(|(at, _)| *at);
        let (cancel, cancelled) = mpsc::channel();
        let thread = thread::spawn(move || {
            let mut done = Vec::new();
            for (at, fault) in timed {
                let wait = at.saturating_sub(begun.elapsed());
                if cancelled.recv_timeout(wait) != Err(mpsc::RecvTimeoutError::Timeout) {
                    break;
                }
                act(&fault);
                done.push(fault);
            }
            done
        });
        Injector { cancel, thread }
    }

    /// The download is over: no further fault. Returns those that happened.
    pub fn finish(self) -> Vec<Fault> {
        // A thread that is done no longer listens.
        let _ = self.cancel.send(());
        self.thread.join().unwrap_or_default()
    }
}
