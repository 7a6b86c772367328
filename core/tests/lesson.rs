//! What downloads teach about origins.

use bamqp_core::lesson::Lesson;
use bamqp_core::time::Span;
use bamqp_core::transfer::{Dispute, LaneKind, LaneStats};

const HOUR: Span = Span::from_millis(3_600_000);

fn refused(status: u16) -> LaneStats {
    LaneStats { refused: Some(status), failures: 1, ..LaneStats::default() }
}

fn brought() -> LaneStats {
    LaneStats { bytes: 1 << 20, ..LaneStats::default() }
}

/// Of the own link's second connection and the peers.
fn lesson(own: LaneStats, peers: &[LaneStats]) -> Option<Lesson> {
    let peers = peers.iter().map(|stats| (LaneKind::Peer, *stats));
    Lesson::of([(LaneKind::Original, brought()), (LaneKind::Own, own)].into_iter().chain(peers))
}

#[test]
fn an_origin_that_refuses_peers_is_left_alone_unless_one_got_something() {
    assert_eq!(lesson(brought(), &[refused(403), refused(403)]), Some(Lesson::RefusesPeers(403)));
    assert_eq!(lesson(brought(), &[refused(403), brought()]), None);
    assert_eq!(lesson(brought(), &[brought()]), None);
    // What says nothing of peers: the file is gone, the server is broken.
    assert_eq!(lesson(brought(), &[refused(404), refused(500)]), None);
}

#[test]
fn one_that_does_not_answer_twice_is_good_for_one_use() {
    assert_eq!(lesson(refused(403), &[refused(403)]), Some(Lesson::OneUse(403)));
    assert_eq!(lesson(refused(503), &[]), Some(Lesson::OneUse(503)));
    // It did answer, and was busy later.
    assert_eq!(lesson(LaneStats { refused: Some(503), ..brought() }, &[brought()]), None);
}

#[test]
fn one_that_serves_different_bytes_is_not_pooled_whatever_else_it_does() {
    let other = LaneStats { verdict: Some(Dispute::Origin), ..brought() };
    assert_eq!(lesson(refused(403), &[other]), Some(Lesson::Inconsistent));
    assert_eq!(lesson(brought(), &[LaneStats { verdict: Some(Dispute::Lie), ..brought() }]), None);
}

#[test]
fn how_long_each_counts() {
    assert_eq!(Lesson::Inconsistent.lasts(), HOUR.scale(12, 1));
    assert_eq!((Lesson::OneUse(403).lasts(), Lesson::RefusesPeers(403).lasts()), (HOUR, HOUR));
    assert_eq!(Lesson::RefusesPeers(429).lasts(), HOUR.scale(1, 6));
}
