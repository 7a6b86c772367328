//! Internet lines and the connections over them, under a virtual clock: what is sent when, and when it arrives. Not
//! responsible for who asks for what.
//!
//! A line carries one segment after the other at its rate, turn by turn from each of its connections that has
//! something to send; a segment arrives half a round trip after it left. A request takes half a round trip to the
//! origin, the first one of a connection a whole one more for the handshake. A connection holds what its reader
//! has not read, up to its buffer; then the sender waits.

use std::collections::VecDeque;

use bamqp_core::time::{Instant, Span};
use bamqp_core::transfer::{Fault, HeadTimes};

/// The number of a line.
pub type LineId = usize;
/// The number of a connection.
pub type FlowId = usize;

/// A household's internet line, as seen from the far end.
#[derive(Clone, Debug)]
pub struct Line {
    /// Bytes per second; 0 while it is silent.
    pub rate: u64,
    /// Round trip to the origin.
    pub rtt: Span,
    /// Whether connections can be made and kept.
    pub up: bool,
    flows: Vec<FlowId>,
    turn: usize,
    sending: bool,
}

/// A connection to the origin over one line.
#[derive(Clone, Debug)]
pub struct Flow {
    /// Over which line.
    pub line: LineId,
    answers: VecDeque<Answer>,
    handshake_done: Instant,
    buffer: u64,
    unread: u64,
    segments: VecDeque<Segment>,
    came: u64,
    open: bool,
}

#[derive(Clone, Debug)]
struct Answer {
    left: u64,
    begins: Instant,
    sent: Instant,
    begun: bool,
    fault: Option<Fault>,
}

/// Bytes of one answer that travel together.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    len: u64,
    last: bool,
    asked: Option<Instant>,
    head: Option<HeadTimes>,
    fault: Option<Fault>,
}

/// What the network has to be told about later.
#[derive(Clone, Copy, Debug)]
pub enum NetEvent {
    /// The line may have something to send.
    Kick(LineId),
    /// The line has finished sending a segment.
    Sent(LineId),
    /// A segment is there.
    Arrive(FlowId, Segment),
}

/// All lines and connections.
#[derive(Clone, Debug, Default)]
pub struct Net {
    /// The lines by number.
    pub lines: Vec<Line>,
    flows: Vec<Flow>,
    /// Events to be scheduled by the caller.
    pub later: Vec<(Instant, NetEvent)>,
}

impl Net {
    /// Adds a line of `rate` bytes per second.
    pub fn add_line(&mut self, rate: u64, rtt: Span) -> LineId {
        self.lines.push(Line { rate, rtt, up: true, flows: Vec::new(), turn: 0, sending: false });
        self.lines.len() - 1
    }

    /// Opens a connection that holds at most `buffer` unread bytes.
    pub fn open(&mut self, now: Instant, line: LineId, buffer: u64) -> FlowId {
        let handshake_done = now + self.lines[line].rtt;
        let flow = self.flows.len();
        let (answers, segments) = (VecDeque::new(), VecDeque::new());
        let (unread, came, open) = (0, 0, true);
        self.flows.push(Flow { line, answers, handshake_done, buffer, unread, segments, came, open });
        self.lines[line].flows.push(flow);
        flow
    }

    /// Closes a connection; what is on its way is dropped.
    pub fn close(&mut self, flow: FlowId) {
        let f = &mut self.flows[flow];
        f.open = false;
        f.answers.clear();
        f.segments.clear();
        self.lines[f.line].flows.retain(|&other| other != flow);
    }

    /// Asks for so many bytes; with a fault, the answer is one that is of no use.
    pub fn request(&mut self, now: Instant, flow: FlowId, bytes: u64, fault: Option<Fault>) {
        let f = &mut self.flows[flow];
        let rtt = self.lines[f.line].rtt;
        let sent = now.max(f.handshake_done);
        let begins = sent + rtt.scale(1, 2);
        let left = if fault.is_some() { 1 } else { bytes };
        f.answers.push_back(Answer { left, begins, sent, begun: false, fault });
        self.later.push((begins, NetEvent::Kick(f.line)));
    }

    /// How many bytes could be read, and whether the last of an answer is among them.
    pub fn readable(&self, flow: FlowId) -> (u64, bool) {
        let segments = &self.flows[flow].segments;
        (segments.iter().map(|s| s.len).sum(), segments.iter().any(|s| s.last))
    }

    /// How many bytes of the answer that is due are there.
    pub fn readable_of_one(&self, flow: FlowId) -> u64 {
        let mut bytes = 0;
        for segment in &self.flows[flow].segments {
            bytes += segment.len;
            if segment.last {
                break;
            }
        }
        bytes
    }

    /// What is wrong with the answer whose head is to be read next.
    pub fn fault(&self, flow: FlowId) -> Option<Fault> {
        self.flows[flow].segments.front().and_then(|segment| segment.fault)
    }

    /// Reads at most `len` bytes of the answer that is due; with them comes its head, if it was not read yet.
    pub fn read(&mut self, now: Instant, flow: FlowId, len: u64) -> (u64, Option<HeadTimes>) {
        let f = &mut self.flows[flow];
        let (mut got, mut head) = (0, None);
        while let Some(segment) = f.segments.front_mut().filter(|_| got < len) {
            if (segment.head.is_some() && got > 0) || segment.fault.is_some() {
                break;
            }
            head = head.or(segment.head.take());
            let n = segment.len.min(len - got);
            got += n;
            segment.len -= n;
            if segment.len == 0 {
                f.segments.pop_front();
            }
        }
        if got > 0 {
            f.unread -= got;
            let back = now + self.lines[f.line].rtt.scale(1, 2);
            self.later.push((back, NetEvent::Kick(f.line)));
        }
        (got, head)
    }

    /// An event that was handed out in [`Self::later`] takes place. Returns the connection on which something arrived.
    pub fn event(&mut self, now: Instant, event: NetEvent) -> Option<FlowId> {
        match event {
            NetEvent::Kick(line) => self.send(now, line),
            NetEvent::Sent(line) => {
                self.lines[line].sending = false;
                self.send(now, line);
            }
            NetEvent::Arrive(flow, segment) => {
                let f = &mut self.flows[flow];
                if f.open {
                    f.came += segment.len;
                    let head = segment.asked.map(|sent| HeadTimes { sent, at: now });
                    f.segments.push_back(Segment { head, ..segment });
                    return Some(flow);
                }
            }
        }
        None
    }

    fn send(&mut self, now: Instant, line: LineId) {
        let l = &mut self.lines[line];
        if l.sending || l.rate == 0 || !l.up {
            return;
        }
        // About 2 ms of the line at a time, in whole TCP segments.
        let quantum = (l.rate / 500).next_multiple_of(1448).min(8 * 1448);
        for step in 0..l.flows.len() {
            let place = (l.turn + step) % l.flows.len();
            let id = l.flows[place];
            let f = &mut self.flows[id];
            let Some(answer) = f.answers.front_mut() else { continue };
            if answer.begins > now || f.unread >= f.buffer {
                continue;
            }
            let len = quantum.min(answer.left);
            let asked = (!answer.begun).then_some(answer.sent);
            answer.begun = true;
            answer.left -= len;
            let (last, fault) = (answer.left == 0, answer.fault);
            if last {
                f.answers.pop_front();
            }
            f.unread += len;
            l.turn = place + 1;
            l.sending = true;
            let sent = now + Span::from_micros(len * 1_000_000 / l.rate);
            self.later.push((sent, NetEvent::Sent(line)));
            self.later.push((
                sent + l.rtt.scale(1, 2),
                NetEvent::Arrive(id, Segment { len, last, asked, head: None, fault }),
            ));
            return;
        }
    }

    /// How many bytes came on a connection so far.
    pub fn came(&self, flow: FlowId) -> u64 {
        self.flows[flow].came
    }

    /// The connections over a line that are open.
    pub fn flows_of(&self, line: LineId) -> &[FlowId] {
        &self.lines[line].flows
    }
}
