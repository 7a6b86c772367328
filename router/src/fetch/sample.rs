//! Reading the answer to a request for places: one range, or `multipart/byteranges`. Not responsible for which places.

use bamqp_core::http::multipart::{Multipart, Step};
use bamqp_core::limits::{MAX_PLACES, PLACE_BYTES};
use bamqp_core::transfer::Fault;
use bamqp_core::verify::{Places, Sample};
use heapless::Vec;

use super::{Fetcher, Progress, Wanted};
use crate::live::Live;
use crate::net::Moved;

/// Longest part; origins may join ranges that lie close to each other.
const MAX_PART_BYTES: u64 = 1024;

/// Longest body with several parts: the most places, each with the longest head and part.
pub(super) const MAX_PARTS_BYTES: u64 = 2 * MAX_PART_BYTES * MAX_PLACES as u64;

/// The places that have come so far.
pub type Samples = Vec<Sample, MAX_PLACES>;

impl Fetcher {
    /// Asks for `places`, now or as soon as it may be sent.
    ///
    /// # Errors
    /// As [`Fetcher::ask`].
    pub fn ask_places(&mut self, places: Places, live: &Live) -> Result<(), Fault> {
        self.ask_for(Wanted::Places(places), live)
    }

    /// Reads what is there of the oldest answer, which is one to [`Fetcher::ask_places`]; true once `samples` has all
    /// of it.
    ///
    /// # Errors
    /// Why the connection or the answer is of no use; it is to be dropped.
    pub fn read_samples(&mut self, samples: &mut Samples, live: &Live) -> Result<Option<Progress>, Fault> {
        self.send()?;
        loop {
            let Some(left) = self.body else {
                match self.asks.is_empty() || !self.read_head(live)? {
                    true => return Ok(Some(Progress::Blocked)),
                    false => continue,
                }
            };
            let taken = match &mut self.parts {
                None => take_one(self.inbox.data(), left, &self.asks, samples),
                Some(parts) => take_parts(parts, self.inbox.data(), left, &self.asks, samples)?,
            };
            self.inbox.consume(taken);
            self.body = Some(left - taken as u64);
            if left == taken as u64 {
                self.finish_answer(live);
                return Ok(None);
            }
            if taken > 0 {
                continue;
            }
            let Some(socket) = self.socket.clone() else { return Err(Fault::Closed) };
            // What is there of a part is looked at again when there is more of it.
            self.set_mark(
                u32::try_from(left.saturating_sub(self.inbox.data().len() as u64)).unwrap_or(u32::MAX),
            );
            match self.inbox.fill(&socket) {
                Ok(Moved::Bytes(_)) => {}
                Ok(Moved::WouldBlock) => return Ok(Some(Progress::Blocked)),
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => {
                    return Err(Fault::Malformed);
                }
                Ok(Moved::End) | Err(_) => return Err(Fault::Closed),
            }
        }
    }

    /// Bytes of the last answer to a request for places, head included.
    pub fn sample_wire(&self) -> u32 {
        self.wire
    }
}

/// Takes the only place of an answer with one range; how many bytes were taken.
fn take_one(data: &[u8], left: u64, asks: &super::Asks, samples: &mut Samples) -> usize {
    let Some(bytes) = usize::try_from(left).ok().and_then(|left| data.get(..left)) else { return 0 };
    if let Some(place) = asks.front().and_then(|ask| ask.what.places()?.iter().next()) {
        push(samples, place.start, bytes);
    }
    bytes.len()
}

/// Takes the places of all parts that are there; how many bytes were taken.
fn take_parts(
    parts: &mut Multipart,
    data: &[u8],
    left: u64,
    asks: &super::Asks,
    samples: &mut Samples,
) -> Result<usize, Fault> {
    let data = usize::try_from(left).ok().and_then(|left| data.get(..left)).unwrap_or(data);
    let whole = data.len() as u64 == left;
    let Some(places) = asks.front().and_then(|ask| ask.what.places()) else { return Err(Fault::Malformed) };
    let mut taken = 0;
    loop {
        let rest = data.get(taken..).unwrap_or_default();
        match parts.step(rest).map_err(|_| Fault::Malformed)? {
            // What follows the last delimiter is of no interest, but must be taken.
            Step::End if whole => return Ok(data.len()),
            Step::End => return Ok(taken),
            Step::Incomplete if whole => return Err(Fault::WrongLength),
            Step::Incomplete => return Ok(taken),
            Step::Part(head, range) => {
                let length = range.end - range.start;
                if length > MAX_PART_BYTES {
                    return Err(Fault::WrongRange);
                }
                let Some(bytes) = rest.get(head..head + length as usize) else { return Ok(taken) };
                for place in places.iter().filter(|p| range.start <= p.start && p.end <= range.end) {
                    let start = (place.start - range.start) as usize;
                    let end = (place.end - range.start) as usize;
                    push(samples, place.start, bytes.get(start..end).unwrap_or_default());
                }
                taken += head + length as usize;
            }
        }
    }
}

fn push(samples: &mut Samples, at: u64, from: &[u8]) {
    let mut bytes = [0; PLACE_BYTES];
    bytes.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
    if samples.iter().all(|sample| sample.at != at) {
        let _ = samples.push(Sample { at, bytes }); // as many as were asked for
    }
}
