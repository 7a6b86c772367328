//! Internet lines and the connections over them, under a virtual clock: what is sent when, and when it arrives. Not
//! responsible for who asks for what.
//!
//! A line carries one segment after the other at its rate, turn by turn from each of its connections that has
//! something to send; a segment arrives half a round trip after it left. A request takes half a round trip to the
//! origin, the first one of a connection a whole one more for the handshake. A connection holds what its reader
//! has not read, up to its buffer; then the sender waits. Over a line with a queue, connections are TCP's: their segments
//! wait for each other in that queue, and what finds it full is lost ([`super::tcp`]).

use std::collections::VecDeque;

use bamqp_core::time::{Instant, Span};
use bamqp_core::transfer::{Fault, HeadTimes};

use super::tcp::{SEGMENT, Tcp};

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
    queue: Option<Queue>,
}

/// What waits to be sent over a line.
#[derive(Clone, Debug)]
struct Queue {
    /// It holds what the line carries in this time.
    depth: Span,
    waiting: VecDeque<(FlowId, Segment, Instant)>,
    bytes: u64,
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
    tcp: Tcp,
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
    pub(super) len: u64,
    /// Its position in all that is sent on its connection.
    pub(super) at: u64,
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
    /// The sender of a connection learns that so many bytes arrived, and how long they had waited in the line's queue.
    Acknowledge(FlowId, u64, Span),
    /// The sender of a connection learns that it was closed.
    Stop(FlowId),
    /// The sender of a connection learns that a segment is lost.
    Lose(FlowId, Segment),
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
        let queue = None;
        self.lines.push(Line { rate, rtt, up: true, flows: Vec::new(), turn: 0, sending: false, queue });
        self.lines.len() - 1
    }

    /// The same with a queue that holds what the line carries in `depth`: connections over it are TCP's.
    pub fn add_tcp_line(&mut self, rate: u64, rtt: Span, depth: Span) -> LineId {
        let line = self.add_line(rate, rtt);
        self.lines[line].queue = Some(Queue { depth, waiting: VecDeque::new(), bytes: 0 });
        line
    }

    /// Opens a connection that holds at most `buffer` unread bytes.
    pub fn open(&mut self, now: Instant, line: LineId, buffer: u64) -> FlowId {
        let handshake_done = now + self.lines[line].rtt;
        let flow = self.flows.len();
        let (answers, segments) = (VecDeque::new(), VecDeque::new());
        let queued = self.lines[line].queue.as_ref().map_or(0, |queue| queue.bytes);
        let waited = Span::from_micros(queued * 1_000_000 / self.lines[line].rate.max(SEGMENT));
        let tcp = Tcp::open(waited);
        let handshake_done = handshake_done + waited;
        let (unread, came, open) = (0, 0, true);
        self.flows.push(Flow { line, answers, handshake_done, buffer, unread, segments, came, tcp, open });
        self.lines[line].flows.push(flow);
        flow
    }

    /// Closes a connection; what is on its way is dropped when it arrives. TCP's sender goes on until it learns of that.
    pub fn close(&mut self, now: Instant, flow: FlowId) {
        let f = &mut self.flows[flow];
        f.open = false;
        f.segments.clear();
        let line = &self.lines[f.line];
        match line.queue {
            Some(_) => self.later.push((now + line.rtt.scale(1, 2), NetEvent::Stop(flow))),
            None => self.stop(flow),
        }
    }

    fn is_sending(&self, flow: FlowId) -> bool {
        self.lines[self.flows[flow].line].flows.contains(&flow)
    }

    fn stop(&mut self, flow: FlowId) {
        let f = &mut self.flows[flow];
        f.answers.clear();
        f.tcp = Tcp::default();
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
            NetEvent::Arrive(flow, segment) => return self.arrive(now, flow, segment).then_some(flow),
            NetEvent::Acknowledge(flow, ..) | NetEvent::Lose(flow, _) if !self.is_sending(flow) => {}
            NetEvent::Acknowledge(flow, len, waited) => {
                let (line, rtt) = (self.flows[flow].line, self.lines[self.flows[flow].line].rtt);
                self.flows[flow].tcp.acknowledged(len, waited, rtt);
                self.send(now, line);
            }
            NetEvent::Lose(flow, segment) => {
                self.flows[flow].tcp.lost(segment);
                self.send(now, self.flows[flow].line);
            }
            NetEvent::Stop(flow) => self.stop(flow),
        }
        None
    }

    /// Whether there is anything new to read.
    fn arrive(&mut self, now: Instant, flow: FlowId, segment: Segment) -> bool {
        let f = &mut self.flows[flow];
        if !f.open {
            return false;
        }
        let ready = match self.lines[f.line].queue {
            Some(_) => f.tcp.arrived(segment),
            None => vec![segment],
        };
        let any = !ready.is_empty();
        f.came += ready.iter().map(|segment| segment.len).sum::<u64>();
        f.segments.extend(ready.into_iter().map(|segment| {
            let head = segment.asked.map(|sent| HeadTimes { sent, at: now });
            Segment { head, ..segment }
        }));
        any
    }

    fn send(&mut self, now: Instant, line: LineId) {
        if self.lines[line].queue.is_some() {
            while self.enqueue_one(now, line) {}
            return self.send_queued(now, line);
        }
        let l = &self.lines[line];
        if l.sending || l.rate == 0 || !l.up {
            return;
        }
        // About 2 ms of the line at a time, in whole TCP segments.
        let quantum = (l.rate / 500).next_multiple_of(SEGMENT).min(8 * SEGMENT);
        let Some((id, segment)) = self.next_segment(now, line, quantum) else { return };
        let l = &mut self.lines[line];
        l.sending = true;
        let sent = now + Span::from_micros(segment.len * 1_000_000 / l.rate);
        self.later.push((sent, NetEvent::Sent(line)));
        self.later.push((sent + l.rtt.scale(1, 2), NetEvent::Arrive(id, segment)));
    }

    /// What one of the line's connections, in turn, has to send.
    fn next_segment(&mut self, now: Instant, line: LineId, quantum: u64) -> Option<(FlowId, Segment)> {
        let l = &mut self.lines[line];
        for step in 0..l.flows.len() {
            let place = (l.turn + step) % l.flows.len();
            let id = l.flows[place];
            let f = &mut self.flows[id];
            if l.queue.is_some() {
                if !f.tcp.may_send() {
                    continue;
                }
                if let Some(segment) = f.tcp.send_again() {
                    l.turn = place + 1;
                    return Some((id, segment));
                }
            }
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
            let at = f.tcp.send(len);
            return Some((id, Segment { len, at, last, asked, head: None, fault }));
        }
        None
    }

    /// One connection's next segment joins the line's queue, or finds it full; false if there is none.
    fn enqueue_one(&mut self, now: Instant, line: LineId) -> bool {
        let Some((id, segment)) = self.next_segment(now, line, SEGMENT) else { return false };
        let l = &mut self.lines[line];
        let Some(queue) = &mut l.queue else { return false };
        if queue.bytes + segment.len > (l.rate * queue.depth.as_micros() / 1_000_000).max(10 * SEGMENT) {
            // What follows it tells the sender, once it has been through the queue.
            let told = now + Span::from_micros(queue.bytes * 1_000_000 / l.rate.max(SEGMENT)) + l.rtt;
            self.later.push((told, NetEvent::Lose(id, segment)));
            return true;
        }
        queue.bytes += segment.len;
        queue.waiting.push_back((id, segment, now));
        true
    }

    fn send_queued(&mut self, now: Instant, line: LineId) {
        let l = &mut self.lines[line];
        let Some(queue) = l.queue.as_mut().filter(|_| !l.sending && l.rate > 0 && l.up) else { return };
        let Some((id, segment, since)) = queue.waiting.pop_front() else { return };
        queue.bytes -= segment.len;
        l.sending = true;
        let sent = now + Span::from_micros(segment.len * 1_000_000 / l.rate);
        self.later.push((sent, NetEvent::Sent(line)));
        self.later.push((sent + l.rtt.scale(1, 2), NetEvent::Arrive(id, segment)));
        let acknowledged = NetEvent::Acknowledge(id, segment.len, now.since(since));
        self.later.push((sent + l.rtt, acknowledged));
    }

    /// How many bytes came on a connection so far.
    pub fn came(&self, flow: FlowId) -> u64 {
        self.flows[flow].came
    }

    /// The connections over a line that are open.
    pub fn flows_of(&self, line: LineId) -> impl Iterator<Item = FlowId> + '_ {
        self.lines[line].flows.iter().copied().filter(|&flow| self.flows[flow].open)
    }
}
