//! Work for another router, which asks for one piece of the file after the other: the same lanes bring them, and they are
//! given out in the order in which they were asked for. There is no original response. Not responsible for what the
//! slots stand for ([`crate::layout`]).

use core::ops::Range;

use super::{Cut, LaneDo, LaneId, LaneState, OwnLink, Transfer, Wake};
use crate::layout::Layout;
use crate::limits::PLACE_BYTES;
use crate::time::Instant;
use crate::verify::{Places, Slot};

impl<S: Slot, const SLOTS: usize> Transfer<S, SLOTS> {
    /// A session that is told piece by piece what to bring ([`Transfer::add_piece`]) and ends when its client is gone. What
    /// is checked of peers is drawn from `secret`. `None` if there are too few `buffers`
    /// ([`crate::reassemble::MIN_BUFFERS`]).
    pub fn in_pieces(
        now: Instant,
        buffers: impl IntoIterator<Item = S>,
        own: OwnLink,
        secret: [u8; 32],
    ) -> Option<Self> {
        let mut transfer = Self::over(now, Layout::growing(), buffers, own, secret)?;
        transfer.lanes[LaneId::ORIGINAL.index()].state = LaneState::Dismissed;
        transfer.cut = Cut::Done;
        Some(transfer)
    }

    /// The client wants these bytes of the file next. `None` if it has to wait until it took some of what it asked for
    /// before, if there are none, or if this session is for one range.
    pub fn add_piece(&mut self, now: Instant, file: Range<u64>) -> Option<Wake> {
        let was_idle = self.slots.next() == self.slots.end();
        if !self.slots.add(file) {
            return None;
        }
        self.todo.extend(self.slots.end());
        if was_idle {
            // Nothing was due, so nothing could come.
            self.last_byte = now;
        }
        let mut wake = Wake::default();
        self.wake_waiting(&mut wake);
        Some(wake)
    }

    /// Whether slot `index` is for our own link only: a place that another router looks at to check somebody.
    pub(super) fn is_for_own(&self, index: u64) -> bool {
        let extent = self.slots.extent(index);
        let is_place = extent.end - extent.start <= PLACE_BYTES as u64;
        let own_is_up = self.lanes.get(LaneId::OWN.index()).is_some_and(|own| own.state == LaneState::Up);
        self.slots.layout().grows() && is_place && own_is_up
    }

    /// What a lane is told to ask for, as offsets into the file instead of positions.
    pub(super) fn in_file(&self, todo: LaneDo<S>) -> LaneDo<S> {
        let layout = self.slots.layout();
        if !layout.grows() {
            return todo; // they are the same
        }
        match todo {
            LaneDo::Request { conn, range } => LaneDo::Request { conn, range: layout.file(range) },
            LaneDo::Sample { conn, places } => {
                LaneDo::Sample { conn, places: Places::of(places.iter().map(|place| layout.file(place))) }
            }
            other => other,
        }
    }
}
