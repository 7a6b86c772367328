//! Whether anything is fetched for a coordinator now: its household comes first here, then what the owner allows. Not
//! responsible for trust, nor for which targets may be fetched.

use core::net::IpAddr;
use std::time::Instant;

use bamqp_core::http::target::Uri;
use bamqp_core::message::Fingerprint;
use bamqp_core::message::init::Decline;
use bamqp_core::message::reason::{DeclineReason, DropReason};

use super::Serve;
use super::init::No;
use super::quota::{Exceeded, SHUT_FOR};
use crate::clock;
use crate::origin::Addresses;
use crate::sparingly::Sparingly;

/// Longest that a neighbour is told not to ask again, in seconds: the owner may have other ideas meanwhile.
const LONGEST: u32 = 60 * 60;

/// Seconds until it is looked again whether the clock is set.
const CLOCK_UNSET: u32 = 60;

impl Serve {
    /// Whether this router helps `coordinator` now.
    ///
    /// # Errors
    /// Why not, and when to ask again.
    pub(super) fn may_help(&self, coordinator: Fingerprint) -> Result<(), Decline> {
        let decline = |reason, retry_after| Decline { reason, retry_after };
        if let Some(seconds) = self.uplink.withdrawn_for() {
            return Err(decline(DeclineReason::Busy, seconds));
        }
        if let Some(hours) = self.terms().helping.hours {
            // The owner's word can't be kept without a clock.
            let wait =
                clock::local_time().map_or(CLOCK_UNSET, |local| hours.begin_in((local % 86_400) as u32));
            if wait > 0 {
                return Err(decline(DeclineReason::Busy, wait.min(LONGEST)));
            }
        }
        self.usage.check(coordinator).map_err(|seconds| decline(DeclineReason::Quota, seconds))
    }

    /// The same, as the answer to a CHUNK.
    ///
    /// # Errors
    /// As [`Serve::may_help`].
    pub(super) fn may_fetch(&self, coordinator: Fingerprint) -> Result<(), (DropReason, u32)> {
        self.may_help(coordinator).map_err(|decline| match decline.reason {
            DeclineReason::Quota => (DropReason::Quota, decline.retry_after),
            _ => (DropReason::Busy, decline.retry_after),
        })
    }

    /// What a coordinator is told that has had its share. One that does not care for the answer is not let in for a while.
    pub(super) fn exceeded(
        &self,
        coordinator: Fingerprint,
        ip: IpAddr,
        exceeded: Exceeded,
        what: &str,
    ) -> No {
        let Exceeded { retry_after, is_first, is_flood } = exceeded;
        let decline = Decline { reason: DeclineReason::Quota, retry_after };
        if is_flood {
            self.doors.shut(ip.to_canonical(), Instant::now() + SHUT_FOR);
            static LINES: Sparingly = Sparingly::new();
            LINES.info(module_path!(), || {
                format!("router {coordinator} floods: it is not let in for {} s", SHUT_FOR.as_secs())
            });
            return No::Flood(decline);
        }
        if is_first {
            log::warn!("router {coordinator} {what}: its INITs are declined for {retry_after} s");
        }
        No::Decline(decline)
    }

    /// Whether the owner wants this never to be fetched, by its name or by where it leads.
    pub(super) fn is_never_fetched(&self, target: &Uri<'_>, addresses: &Addresses) -> bool {
        let terms = self.terms();
        let never = &terms.helping.never_fetch;
        if never.is_empty() {
            return false;
        }
        let host = target.host.to_string();
        never
            .iter()
            .any(|never| never.has_host(&host) || addresses.iter().any(|at| never.has_address(at.ip())))
    }
}
