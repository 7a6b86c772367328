//! One request and its response: what the origin answers goes to the client, or to [`crate::coordinate`] if peers are
//! to help. Not responsible for choosing the origin's connection.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bamqp_core::decide::{Decision, Pool, Relay, check_request, decide, repr_digest};
use bamqp_core::http::Version;
use bamqp_core::http::body::BodyLength;
use bamqp_core::http::body_scan::BodyScanner;
use bamqp_core::http::forward::{self, Hop};
use bamqp_core::http::request::Request;
use bamqp_core::http::response::Response;
use bamqp_core::http::target::Uri;
use bamqp_core::http::write::HeadWriter;
use bamqp_core::limits::MAX_INTERIM;

use crate::answer::Trouble;
use crate::coordinate::{self, Job};
use crate::daemon::Shared;
use crate::inbox::Inbox;
use crate::names::Names;
use crate::net::{self, Moved};
use crate::origin::Connected;
use crate::proxy::{FOR_WRITING, Next, OUT_BYTES, Origin};
use crate::relay::{self, Pump, RelayError};

/// Longest `User-Agent` or `Accept` that lanes repeat, in bytes.
const MAX_SHARED_FIELD: usize = 256;

/// How long the origin may take to answer.
const FOR_AN_ANSWER: Duration = Duration::from_secs(5 * 60);

/// A request that was read from the client.
pub(crate) struct Exchange<'a> {
    pub(crate) shared: &'a Arc<Shared>,
    pub(crate) client: &'a TcpStream,
    pub(crate) request: &'a Request<'a>,
    pub(crate) uri: &'a Uri<'a>,
    /// How the end of the request's body is known.
    pub(crate) body: BodyLength,
    /// Whether the request asks for another protocol.
    pub(crate) upgrade: bool,
    /// Of a redirected connection: whether the request's authority leads where it was going.
    pub(crate) names: Option<&'a Names>,
}

/// How it ended, if not with an answer of our own.
pub(crate) enum Outcome {
    /// The client has its response, or at least the beginning.
    Done { next: Next, origin_reusable: bool },
    /// The origin changed the protocol: from here on it is a tunnel.
    Upgraded,
    /// The origin had closed the kept connection; nothing came, so the request can be sent on a new one.
    Stale,
}

/// What the wait for a response brought.
enum Awaited {
    /// A final head of this length is in the origin's inbox.
    Final(usize),
    Upgraded,
    Stale,
    ClientGone,
}

/// How the response is handed on.
struct Plan {
    /// How the origin tells the end of the body, and how the client will know it.
    length: BodyLength,
    told: BodyLength,
    client_closes: bool,
    origin_stays: bool,
}

/// Whether the response to this request may come to be pooled, so that the resolver is worth asking.
pub(crate) fn may_be_pooled(shared: &Shared, request: &Request<'_>, uri: &Uri<'_>) -> bool {
    check_request(request, uri).is_ok() && shared.peers.usable() > 0
}

impl Exchange<'_> {
    /// Sends the request, whose head was written into `head` before, and passes the response on.
    ///
    /// # Errors
    /// If the client got nothing of a response and is to be told why.
    pub(crate) fn run(
        &self,
        client_inbox: &mut Inbox,
        head: &[u8],
        origin: &mut Origin,
    ) -> Result<Outcome, Trouble> {
        let Origin { link, inbox, used } = origin;
        let socket = &*link.socket;
        // What has come of the request's body goes along with the head.
        let mut scanner = BodyScanner::new(self.body);
        let ready = scanner.scan(client_inbox.data()).map_err(Trouble::BadRequestBody)?;
        let start = client_inbox.data().get(..ready).unwrap_or_default();
        let asked = Instant::now();
        // If it can't be written, the origin may have answered all the same; the wait finds out.
        let _ = net::write_both(socket, head, start, FOR_WRITING);
        client_inbox.consume(ready);
        let mut upload = Pump::new(self.client, client_inbox, socket, scanner);

        let head_length = match self.await_head(&mut upload, socket, inbox, *used)? {
            Awaited::Final(length) => length,
            Awaited::Upgraded => return Ok(Outcome::Upgraded),
            Awaited::Stale => return Ok(Outcome::Stale),
            Awaited::ClientGone => {
                return Ok(Outcome::Done { next: Next::Abort, origin_reusable: false });
            }
        };
        let Ok(Some((response, _))) = Response::parse(inbox.data()) else {
            return Err(Trouble::BadAnswer("malformed head"));
        };
        let answer_time = asked.elapsed();
        let plan = self.plan(&response, upload.is_done())?;
        let mut out = vec![0; OUT_BYTES];
        let mut writer = HeadWriter::new(&mut out);
        let hop = Hop { via: &self.shared.via, upgrade: false, close: plan.client_closes };
        forward::response(&mut writer, &response, plan.told, hop);
        let out_length = writer.finish().map_err(|_| Trouble::BadAnswer("its head is too large"))?;
        out.truncate(out_length);
        out.shrink_to_fit(); // it stays for as long as the response takes

        let result = match self.decide(&response, link) {
            Some(pool) => {
                let digest = repr_digest(&response.fields).filter(|_| pool.range == (0..pool.total));
                self.pooled((pool, digest), &out, head_length, (link, answer_time), inbox)
            }
            None => self.relayed(&plan, &out, head_length, &mut upload, socket, inbox)?.map(|()| true),
        };
        Ok(match result {
            Ok(reusable) => Outcome::Done {
                next: if plan.client_closes { Next::Close } else { Next::Request },
                origin_reusable: reusable && plan.origin_stays && upload.is_done() && inbox.data().is_empty(),
            },
            Err(error) => {
                log::info!("{}: cut short: {error}", self.uri.authority());
                self.shared.counters.failed.fetch_add(1, Ordering::Relaxed);
                if plan.told == BodyLength::UntilClose {
                    net::reset_on_close(self.client);
                }
                Outcome::Done { next: Next::Abort, origin_reusable: false }
            }
        })
    }

    /// Passes on the request's body and interim responses until the final response's head is there.
    fn await_head(
        &self,
        upload: &mut Pump<'_>,
        origin: &TcpStream,
        inbox: &mut Inbox,
        used: bool,
    ) -> Result<Awaited, Trouble> {
        let mut silent = true;
        let mut interim = 0;
        loop {
            match Response::parse(inbox.data()) {
                Err(_) => return Err(Trouble::BadAnswer("malformed head")),
                Ok(Some((response, length))) if response.is_interim() => {
                    interim += 1;
                    if interim > MAX_INTERIM {
                        return Err(Trouble::BadAnswer("too many interim responses"));
                    }
                    let upgraded = response.status == 101;
                    if upgraded && !self.upgrade {
                        return Err(Trouble::BadAnswer("it changes the protocol unasked"));
                    }
                    // RFC 9110 section 15.2: never to an HTTP/1.0 client.
                    if self.request.version == Version::Http11 && self.interim(&response, upgraded).is_err() {
                        return Ok(Awaited::ClientGone);
                    }
                    inbox.consume(length);
                    if upgraded {
                        return Ok(Awaited::Upgraded);
                    }
                    continue;
                }
                Ok(Some((_, length))) => return Ok(Awaited::Final(length)),
                Ok(None) if inbox.is_full() => {
                    return Err(Trouble::BadAnswer("its head is too large"));
                }
                Ok(None) => {}
            }
            match inbox.fill(origin) {
                Ok(Moved::Bytes(_)) => silent = false,
                Ok(Moved::WouldBlock) => match relay::upload(upload, FOR_AN_ANSWER) {
                    Ok(()) => {}
                    Err(RelayError::Idle) => return Err(Trouble::Late),
                    Err(RelayError::Framing(error)) => return Err(Trouble::BadRequestBody(error)),
                    Err(_) => return Ok(Awaited::ClientGone),
                },
                Ok(Moved::End) | Err(_) if silent && used => return Ok(Awaited::Stale),
                Ok(Moved::End) | Err(_) => return Err(Trouble::NoAnswer),
            }
        }
    }

    fn interim(&self, response: &Response<'_>, upgrade: bool) -> std::io::Result<()> {
        let mut out = vec![0; OUT_BYTES];
        let mut writer = HeadWriter::new(&mut out);
        let hop = Hop { via: &self.shared.via, upgrade, close: false };
        forward::response(&mut writer, response, BodyLength::None, hop);
        match writer.finish() {
            Ok(length) => net::write_all(self.client, out.get(..length).unwrap_or_default(), FOR_WRITING),
            Err(_) if upgrade => Err(std::io::ErrorKind::InvalidData.into()),
            Err(_) => Ok(()), // a hint that is too large is no loss
        }
    }

    fn plan(&self, response: &Response<'_>, uploaded: bool) -> Result<Plan, Trouble> {
        let request = self.request;
        let length = BodyLength::of_response(response, request.method).map_err(Trouble::BadLength)?;
        let told = match (length, request.version) {
            (BodyLength::Chunked, Version::Http10) => BodyLength::UntilClose,
            _ => length,
        };
        Ok(Plan {
            length,
            told,
            // While the rest of a request is under way, it can't be told where the next one begins.
            client_closes: !forward::keeps_alive(&request.fields, request.version)
                || told == BodyLength::UntilClose
                || !uploaded,
            origin_stays: forward::keeps_alive(&response.fields, response.version) && length.is_delimited(),
        })
    }

    /// Whether peers are to help.
    fn decide(&self, response: &Response<'_>, link: &Connected) -> Option<Pool> {
        let address = self.shared.gate.check_public(link.address);
        let situation = coordinate::situation(self.shared, self.uri, link.address, address);
        let decision = match decide(self.request, self.uri, response, &situation) {
            Decision::Aggregate(_)
                if self.names.is_some_and(|names| !names.agrees(&self.uri.authority())) =>
            {
                Decision::Relay(Relay::Destination)
            }
            decision => decision,
        };
        match decision {
            Decision::Aggregate(pool) => Some(pool),
            Decision::Relay(reason) => {
                log::debug!("{}: relayed: {reason}", self.uri.authority());
                None
            }
        }
    }

    /// Passes the response on over the own link alone; the outer error is one that the client can still be told.
    fn relayed(
        &self,
        plan: &Plan,
        out: &[u8],
        head_length: usize,
        upload: &mut Pump<'_>,
        origin: &TcpStream,
        inbox: &mut Inbox,
    ) -> Result<Result<(), RelayError>, Trouble> {
        let mut scanner = BodyScanner::new(plan.length);
        let unchunk = plan.told != plan.length;
        let came = inbox.data().get(head_length..).unwrap_or_default();
        let ready = match unchunk {
            true => 0,
            false => scanner.scan(came).map_err(|_| Trouble::BadAnswer("broken chunked coding"))?,
        };
        let start = came.get(..ready).unwrap_or_default();
        if let Err(error) = net::write_both(self.client, out, start, FOR_WRITING) {
            return Ok(Err(RelayError::Sink(error)));
        }
        inbox.consume(head_length + ready);
        let mut response = Pump::new(origin, inbox, self.client, scanner).bulk();
        if unchunk {
            response = response.unchunk();
        }
        Ok(relay::exchange(&mut response, Some(upload)))
    }

    /// Hands the download over; whether the origin's connection can be used again.
    fn pooled(
        &self,
        (pool, digest): (Pool, Option<[u8; 32]>),
        out: &[u8],
        head_length: usize,
        (link, answer_time): (&Connected, Duration),
        inbox: &mut Inbox,
    ) -> Result<bool, RelayError> {
        let came = inbox.data().get(head_length..).unwrap_or_default();
        let most = usize::try_from(pool.range.end - pool.range.start).unwrap_or(usize::MAX);
        let body_start = came.get(..most).unwrap_or(came);
        net::write_both(self.client, out, body_start, FOR_WRITING).map_err(RelayError::Sink)?;
        let job = Job {
            client: self.client,
            origin: link.socket.clone(),
            origin_address: link.address,
            answer_time,
            body_start,
            pool,
            digest,
            uri: *self.uri,
            user_agent: short(self.request.fields.get("User-Agent")),
            accept: short(self.request.fields.get("Accept")),
        };
        let taken = head_length + body_start.len();
        let done = coordinate::aggregate(self.shared, job);
        inbox.consume(taken);
        done.map(|done| done.origin_reusable)
    }
}

/// A field for the lanes' requests, unless it is so long that a message to a peer has no room for it.
fn short(value: Option<&[u8]>) -> Option<&[u8]> {
    value.filter(|value| value.len() <= MAX_SHARED_FIELD)
}
