//! What is kept of announcements, and when the own one is sent.

use core::net::SocketAddr;

use bamqp_core::announce::Announcement;
use bamqp_core::discover::{DATAGRAMS_PER_SECOND, Intake, KEPT_FOR, Kept, PAUSE, Schedule, Table};
use bamqp_core::limits::{MAX_HEARD, MAX_HEARD_PER_ADDRESS};
use bamqp_core::time::{Instant, Span};
use proptest::prelude::*;

const OWN: [u8; 32] = [0; 32];

fn key(number: u32) -> [u8; 32] {
    let mut key = [1; 32];
    key[..4].copy_from_slice(&number.to_be_bytes());
    key
}

fn announcement(number: u32, name: &str) -> Announcement {
    Announcement { public_key: key(number), name: name.parse().unwrap(), port: 7733 }
}

/// From which the datagram came: a port of its own.
fn from(number: u32) -> SocketAddr {
    (core::net::Ipv4Addr::from(0x0a4d_0000 + number), 40_000).into()
}

fn at(millis: u64) -> Instant {
    Instant::from_micros(millis * 1000)
}

#[test]
fn the_address_is_the_senders_and_the_port_the_announced_one() {
    let mut table = Table::default();
    assert_eq!(table.hear(at(0), &OWN, from(1), announcement(1, "B")), Kept::New);
    assert_eq!(table.heard()[0].address, "10.77.0.1:7733".parse().unwrap());
    let mut other_port = from(1);
    other_port.set_port(50_000);
    assert_eq!(table.hear(at(5), &OWN, other_port, announcement(1, "C")), Kept::Again);
    let [heard] = table.heard() else { panic!("{table:?}") };
    assert_eq!((heard.name.as_str(), heard.last), ("C", at(5)));
}

#[test]
fn an_impostor_stands_beside_whom_it_imitates_and_changes_nothing_of_it() {
    let mut table = Table::default();
    table.hear(at(0), &OWN, from(1), announcement(1, "B"));
    let before = table.heard().to_vec();
    assert_eq!(table.hear(at(1), &OWN, from(2), announcement(1, "B")), Kept::New, "the same key elsewhere");
    assert_eq!(table.hear(at(1), &OWN, from(3), announcement(2, "B")), Kept::New, "the same name");
    assert_eq!(table.hear(at(1), &OWN, from(1), announcement(2, "B")), Kept::New, "the same address");
    assert_eq!(table.heard()[..1], before);
}

#[test]
fn our_own_is_nobody() {
    let mut table = Table::default();
    let own = Announcement { public_key: OWN, ..announcement(1, "A") };
    assert_eq!(table.hear(at(0), &OWN, from(1), own), Kept::Own);
    assert!(table.heard().is_empty());
}

#[test]
fn a_flood_is_bounded_and_pushes_nobody_out() {
    let mut table = Table::default();
    table.hear(at(0), &OWN, from(0), announcement(0, "B"));
    for number in 1..10_000 {
        let kept = table.hear(at(1), &OWN, from(number), announcement(number, "B"));
        assert_eq!(kept, if number < MAX_HEARD as u32 { Kept::New } else { Kept::Full });
    }
    assert_eq!(table.heard().len(), MAX_HEARD);
    assert_eq!(table.heard()[0].public_key, key(0));
    assert_eq!(table.hear(at(2), &OWN, from(0), announcement(0, "B")), Kept::Again);

    // One address alone takes two places.
    let mut table = Table::default();
    for number in 0..100 {
        let kept = table.hear(at(0), &OWN, from(1), announcement(number, "B"));
        assert_eq!(kept, if number < MAX_HEARD_PER_ADDRESS as u32 { Kept::New } else { Kept::AddressFull });
    }
}

#[test]
fn who_is_not_heard_any_more_makes_room() {
    let mut table = Table::default();
    for number in 0..MAX_HEARD as u32 {
        table.hear(at(0), &OWN, from(number), announcement(number, "B"));
    }
    table.hear(at(60_000), &OWN, from(0), announcement(0, "B"));
    let end = at(0) + KEPT_FOR;
    let just_before = Instant::from_micros(end.as_micros() - 1);
    assert_eq!(table.hear(just_before, &OWN, from(99), announcement(99, "C")), Kept::Full);
    assert_eq!(table.hear(end, &OWN, from(99), announcement(99, "C")), Kept::New);
    assert_eq!(table.heard().iter().map(|heard| heard.name.as_str()).collect::<Vec<_>>(), ["B", "C"]);
}

#[test]
fn announcements_are_spread_around_thirty_seconds_and_a_new_router_is_answered() {
    let mut schedule = Schedule::start(at(0), u32::MAX / 2);
    assert!((499..=500).contains(&(schedule.next().as_micros() / 1000)));
    schedule.announced(at(500), 0);
    assert_eq!(schedule.next(), at(500) + PAUSE.0);
    schedule.announced(at(500), u32::MAX);
    assert_eq!(schedule.next(), at(500) + PAUSE.1);
    // Not at once after the last one.
    schedule.answer(at(1_000), 0);
    assert_eq!(schedule.next(), at(5_500));
    schedule.announced(at(5_500), 0);
    schedule.answer(at(20_000), u32::MAX);
    assert_eq!(schedule.next(), at(21_000));
    // What comes earlier anyhow stays.
    schedule.announced(at(21_000), 0);
    schedule.answer(at(45_900), u32::MAX);
    assert_eq!(schedule.next(), at(46_000));
}

#[test]
fn new_routers_by_the_thousand_are_answered_every_five_seconds() {
    let mut schedule = Schedule::start(at(0), 0);
    let mut sent = 0;
    for millis in 0..60_000 {
        schedule.answer(at(millis), 0);
        if schedule.next() <= at(millis) {
            schedule.announced(at(millis), u32::MAX);
            sent += 1;
        }
    }
    assert_eq!(sent, 12);
}

proptest! {
    /// Whatever the moments, no span of a second has more than two periods' worth, and nobody waits longer than a second.
    #[test]
    fn datagrams_looked_at_are_bounded(steps in proptest::collection::vec(0u64..200_000, 1..500)) {
        let mut intake = Intake::default();
        let (mut now, mut taken) = (Instant::from_micros(5_000_000), Vec::new());
        for step in steps {
            now = now + Span::from_micros(step);
            let was_open = intake.open_at() <= now;
            let took = intake.take(now);
            prop_assert_eq!(took, was_open);
            prop_assert!(intake.open_at().since(now) <= Span::from_millis(1000));
            if took {
                taken.push(now);
            }
            let last_second = taken.iter().filter(|at| now.since(**at) < Span::from_millis(1000)).count();
            prop_assert!(last_second <= 2 * DATAGRAMS_PER_SECOND as usize);
        }
    }

    #[test]
    fn the_table_keeps_its_limits(
        heard in proptest::collection::vec((0u32..50, 0u32..50, 0u64..40_000), 0..300),
    ) {
        let (mut table, mut now) = (Table::default(), at(0));
        for (key, address, pause) in heard {
            now = now + Span::from_millis(pause);
            table.hear(now, &OWN, from(address), announcement(key, "B"));
            for one in table.heard() {
                prop_assert!(now.since(one.last) < KEPT_FOR);
                let same = table.heard().iter().filter(|other| other.address.ip() == one.address.ip());
                prop_assert!(same.count() <= MAX_HEARD_PER_ADDRESS);
            }
        }
    }
}
