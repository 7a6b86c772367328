//! The interface to the internet: which one it is, and what it has received. Not responsible for what follows from that
//! ([`crate::uplink`]).
//!
//! `/proc/net/dev` rather than the files below `/sys/class/net`: one read gives bytes and packets of the same moment, and a
//! jail without sysfs has it, too.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use bamqp_core::spare::stream::Counters;

/// Where the kernel counts what each interface has received.
pub const COUNTERS: &str = "/proc/net/dev";

/// Room for the counters of some sixty interfaces.
const BUFFER_BYTES: usize = 8 * 1024;

/// `RTF_UP` and `RTF_REJECT` of route(7).
const ROUTE_IS_UP: u32 = 1;
const ROUTE_REJECTS: u32 = 0x200;

/// One interface's counters. Reading them allocates nothing.
#[derive(Debug)]
pub struct Wan {
    /// Its name.
    pub name: String,
    file: File,
    buffer: Box<[u8]>,
}

impl Wan {
    /// The counters of the interface of this name, in a file such as [`COUNTERS`].
    ///
    /// # Errors
    /// If there is no such file. (An interface may come later.)
    pub fn open(file: &Path, name: &str) -> io::Result<Wan> {
        let buffer = vec![0; BUFFER_BYTES].into_boxed_slice();
        Ok(Wan { name: name.into(), file: File::open(file)?, buffer })
    }

    /// What it has received; `None` if there is no such interface now.
    pub fn read(&mut self) -> Option<Counters> {
        let mut filled = 0;
        while let Some(room) = self.buffer.get_mut(filled..).filter(|room| !room.is_empty()) {
            match self.file.read_at(room, filled as u64) {
                Ok(0) => break,
                Ok(bytes) => filled += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
        let text = core::str::from_utf8(self.buffer.get(..filled)?).ok()?;
        find(text, &self.name)
    }
}

/// `  eth0: <bytes> <packets> …`
fn find(text: &str, name: &str) -> Option<Counters> {
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix(name)?.strip_prefix(':'))?;
    let mut numbers = line.split_ascii_whitespace().map(str::parse);
    Some(Counters { bytes: numbers.next()?.ok()?, packets: numbers.next()?.ok()? })
}

/// The interface of the default route: IPv4's, else IPv6's.
pub fn default_interface() -> Option<String> {
    let read = |file| fs::read_to_string(file).unwrap_or_default();
    ipv4_default(&read("/proc/net/route")).or_else(|| ipv6_default(&read("/proc/net/ipv6_route")))
}

/// Of the routes to everywhere the one that the kernel takes: with the lowest metric.
fn ipv4_default(routes: &str) -> Option<String> {
    let route = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let (name, destination) = (fields.next()?, fields.next()?);
        let flags = u32::from_str_radix(fields.nth(1)?, 16).ok()?;
        let metric: u32 = fields.nth(2)?.parse().ok()?;
        let mask = fields.next()?;
        let is_default = destination == "00000000" && mask == "00000000";
        (is_default && is_usable(flags)).then(|| (metric, name.to_owned()))
    };
    routes.lines().filter_map(route).min_by_key(|(metric, _)| *metric).map(|(_, name)| name)
}

fn ipv6_default(routes: &str) -> Option<String> {
    let route = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [destination, "00", _, _, _, metric, _, _, flags, name] = fields[..] else { return None };
        let is_default = destination.bytes().all(|digit| digit == b'0') && name != "lo";
        let (metric, flags) = (u32::from_str_radix(metric, 16).ok()?, u32::from_str_radix(flags, 16).ok()?);
        (is_default && is_usable(flags)).then(|| (metric, name.to_owned()))
    };
    routes.lines().filter_map(route).min_by_key(|(metric, _)| *metric).map(|(_, name)| name)
}

fn is_usable(flags: u32) -> bool {
    flags & ROUTE_IS_UP != 0 && flags & ROUTE_REJECTS == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_route_with_the_lowest_metric_is_the_way_to_the_internet() {
        let head = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";
        let lan = "br-lan\t0001A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        let lte = "wwan0\t00000000\t0101A8C0\t0003\t0\t0\t20\t00000000\t0\t0\t0\n";
        let dsl = "pppoe-wan\t00000000\t010AA8C0\t0003\t0\t0\t10\t00000000\t0\t0\t0\n";
        let down = "eth9\t00000000\t010AA8C0\t0002\t0\t0\t0\t00000000\t0\t0\t0\n";
        assert_eq!(ipv4_default(&format!("{head}{lan}")), None);
        assert_eq!(ipv4_default(&format!("{head}{lan}{lte}{down}{dsl}")).as_deref(), Some("pppoe-wan"));
        assert_eq!(ipv4_default("nonsense\n\n\t"), None);
    }

    #[test]
    fn without_ipv4_it_is_that_of_ipv6() {
        let zeros = "00000000000000000000000000000000";
        let reject = format!("{zeros} 00 {zeros} 00 {zeros} ffffffff 00000001 00000000 00200200     lo\n");
        let wan = format!(
            "{zeros} 00 {zeros} 00 fe800000000000000000000000000001 00000400 1 0 00450003     wan6\n"
        );
        let lan = format!("fd09{} 40 {zeros} 00 {zeros} 00000100 1 0 00000001 br-lan\n", &zeros[4..]);
        assert_eq!(ipv6_default(&format!("{reject}{lan}{wan}")).as_deref(), Some("wan6"));
        assert_eq!(ipv6_default(&format!("{reject}{lan}")), None);
    }

    #[test]
    fn the_counters_are_read_again_and_again_from_one_file() {
        let path = std::env::temp_dir().join(format!("bamqp-wan-{}", std::process::id()));
        let text = |bytes: u64| {
            format!(
                "Inter-|   Receive\n face |bytes    packets errs\n    lo: 1 2 0\n  wan0: 5 6 0\n   wan: {bytes} 7 0 0\n"
            )
        };
        fs::write(&path, text(1_000_000_000_000)).unwrap();
        let mut wan = Wan::open(&path, "wan").unwrap();
        assert_eq!(wan.read(), Some(Counters { bytes: 1_000_000_000_000, packets: 7 }));
        fs::write(&path, text(1_000_000_000_001)).unwrap();
        assert_eq!(wan.read(), Some(Counters { bytes: 1_000_000_000_001, packets: 7 }));
        assert_eq!(Wan::open(&path, "an").unwrap().read(), None);
        fs::remove_file(&path).unwrap();
        // The kernel's own: there is always a loopback interface.
        assert!(Wan::open(Path::new(COUNTERS), "lo").unwrap().read().is_some());
    }
}
