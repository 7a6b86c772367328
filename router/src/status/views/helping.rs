//! What `bamqp status` shows of helping neighbours: the line, who uses it, and what is left of the quotas. Not responsible
//! for the rules.

use bamqp_core::spare::Offer;

use crate::daemon::Shared;
use crate::keys::fingerprint_of;
use crate::status::document::{Cell, Name, Unit};

/// What was fetched for each neighbour, and how often it asked for more than its share.
pub fn neighbours(shared: &Shared) -> (Vec<Name>, Vec<Vec<Cell>>) {
    let columns = vec![
        ("peer", Unit::Text),
        ("today", Unit::Bytes),
        ("of_quota", Unit::Bytes),
        ("asked_beyond_its_share", Unit::Count),
    ];
    let (usage, excess) = (shared.usage.report(), shared.serve.excess());
    let row = |peer: &crate::config::Peer| {
        let key = fingerprint_of(&peer.public_key);
        let today = usage.peers.iter().find(|(other, _)| *other == key).map_or(0, |(_, bytes)| *bytes);
        let excess = excess.iter().find(|(other, _)| *other == key).map_or(0, |(_, count)| *count);
        vec![peer.name.as_str().into(), today.into(), usage.peer_day.into(), excess.into()]
    };
    (columns, shared.config.partners().iter().map(row).collect())
}

/// The household's line and what neighbours get of it.
pub fn facts(shared: &Shared) -> Vec<(Name, Cell)> {
    let line = shared.uplink.report();
    let usage = shared.usage.report();
    let hours = shared.config.helping.hours.map(|hours| hours.to_string());
    let seconds = |left: bamqp_core::time::Span| left.as_millis().div_ceil(1000);
    let (offered, pace, left) = match line.offer {
        Offer::Open { rate, pace } => (Some(rate).filter(|rate| *rate > 0), pace, None),
        Offer::Withdrawn { left } => (Some(0), Some(0), Some(seconds(left))),
    };
    vec![
        (("state", Unit::Text), line.state.to_string().into()),
        (("withdrawn_for", Unit::Seconds), left.into()),
        (("wan_interface", Unit::Text), line.interface.as_deref().unwrap_or("none is watched").into()),
        (("line_carries", Unit::Rate), line.capacity.into()),
        (("household_uses", Unit::Rate), line.household.into()),
        (("offered", Unit::Rate), offered.into()),
        (("paced_to", Unit::Rate), pace.into()),
        (("fetched_today", Unit::Bytes), usage.day.0.into()),
        (("quota_day", Unit::Bytes), usage.day.1.into()),
        (("fetched_this_month", Unit::Bytes), usage.month.0.into()),
        (("quota_month", Unit::Bytes), usage.month.1.into()),
        (("hours", Unit::Text), hours.into()),
    ]
}
