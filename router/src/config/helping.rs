//! The options that say how much this router helps its neighbours: which line is watched, how much of it they get, when, and
//! what is never fetched. Not responsible for keeping to them ([`crate::uplink`], [`crate::serve`]).

use core::net::IpAddr;
use std::path::PathBuf;

use bamqp_core::address::Network;
use bamqp_core::hours::Hours;

use super::{Complaint, SIZE, Section, bits, number, parsed, size};

/// The options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Helping {
    /// The interface to the internet. Default: that of the default route.
    pub wan_interface: Option<String>,
    /// Where the kernel counts what interfaces receive. No option: simulations have another file.
    pub wan_counters: PathBuf,
    /// Hundredths of what the household does not use that neighbours get, 1 to 100. Default: 100.
    pub share: u8,
    /// Bits per second that neighbours get even while the household uses its line. Default: 0.
    pub floor: u64,
    /// Most bytes fetched for neighbours a day. Default: no limit.
    pub quota_day: Option<u64>,
    /// Most bytes fetched for neighbours a month. Default: no limit.
    pub quota_month: Option<u64>,
    /// Most bytes fetched for one neighbour a day. Default: no limit.
    pub quota_peer_day: Option<u64>,
    /// When neighbours are helped, in local time. Default: always.
    pub hours: Option<Hours>,
    /// What is never fetched for neighbours. Default: nothing.
    pub never_fetch: Vec<Target>,
}

/// What is never fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A host, and all below it; in lower case.
    Name(String),
    /// Addresses.
    Network(Network),
}

impl Target {
    /// Whether a URI's host is meant. Of addresses only if the URI has one: what a name leads to is known after resolving.
    pub fn has_host(&self, host: &str) -> bool {
        match self {
            Target::Name(name) => {
                let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
                host.strip_suffix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }
            Target::Network(_) => {
                let host = host.trim_start_matches('[').trim_end_matches(']');
                parsed(host).is_some_and(|ip| self.has_address(ip))
            }
        }
    }

    /// Whether an address is meant.
    pub fn has_address(&self, ip: IpAddr) -> bool {
        matches!(self, Target::Network(network) if network.contains(ip.to_canonical()))
    }
}

impl Default for Helping {
    fn default() -> Self {
        Self {
            wan_interface: None,
            wan_counters: crate::wan::COUNTERS.into(),
            share: 100,
            floor: 0,
            quota_day: None,
            quota_month: None,
            quota_peer_day: None,
            hours: None,
            never_fetch: Vec::new(),
        }
    }
}

/// Names of the options, for complaints.
pub(super) const OPTIONS: &str =
    "wan_interface, share, floor, quota_day, quota_month, quota_peer_day, hours, never_fetch";

const TARGET: &str = "a host such as example.org, which stands for all below it too, or an address range";

/// Takes the options out of the main section.
pub(super) fn read(section: &mut Section) -> Result<Helping, Complaint> {
    let default = Helping::default();
    let s = section;
    Ok(Helping {
        wan_interface: s.one("wan_interface", "an interface's name, such as wan or pppoe-wan", interface)?,
        share: s.one("share", "hundredths from 1 to 100", share)?.unwrap_or(default.share),
        floor: s.one("floor", "bits per second, such as 500k or 1M", bits)?.unwrap_or(default.floor),
        quota_day: s.one("quota_day", SIZE, size)?,
        quota_month: s.one("quota_month", SIZE, size)?,
        quota_peer_day: s.one("quota_peer_day", SIZE, size)?,
        hours: s.one("hours", "two times of the day, such as 22-06 or 22:30-06:15", parsed)?,
        never_fetch: s.many("never_fetch", TARGET, target)?.unwrap_or_default(),
        wan_counters: default.wan_counters,
    })
}

/// As the kernel takes names: at most 15 bytes, no blanks, colons or slashes.
fn interface(text: &str) -> Option<String> {
    let is_name =
        (1..=15).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic() && !b"/:".contains(&b));
    is_name.then(|| text.into())
}

fn share(text: &str) -> Option<u8> {
    let hundredths = number(text.strip_suffix('%').unwrap_or(text), &[])?;
    u8::try_from(hundredths).ok().filter(|share| (1..=100).contains(share))
}

fn target(text: &str) -> Option<Target> {
    if let Some(network) = parsed(text) {
        return Some(Target::Network(network));
    }
    if let Some(ip) = parsed::<IpAddr>(text) {
        let bits = if ip.is_ipv4() { 32 } else { 128 };
        return parsed(&format!("{ip}/{bits}")).map(Target::Network);
    }
    let name = text.strip_prefix("*.").or(text.strip_prefix('.')).unwrap_or(text);
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    name.split('.').all(is_label).then(|| Target::Name(name.to_ascii_lowercase()))
}
