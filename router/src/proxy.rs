//! The side of the household's clients: one connection of a client, request by request. Not responsible for what
//! happens between a request and its response (`exchange`).
//!
//! A redirected connection is one of a client that knows of no proxy (transparent mode). It always goes where it was
//! going, whatever its requests say; what is not a request to a web server goes through as it is.

use core::net::SocketAddr;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bamqp_core::http::body::BodyLength;
use bamqp_core::http::forward::{self, Hop};
use bamqp_core::http::request::Request;
use bamqp_core::http::target::{Authority, Target, Uri};
use bamqp_core::http::write::HeadWriter;
use bamqp_core::limits::MAX_HEAD_BYTES;
use bamqp_core::refuse::{Admitted, Refuse, admit};

use crate::answer::{self, Trouble};
use crate::daemon::{Hub, Shared};
use crate::exchange::{Exchange, Outcome, may_be_pooled};
use crate::inbox::Inbox;
use crate::names::Names;
use crate::net::{self, Moved};
use crate::origin::{Connected, OriginError};
use crate::relay::{self, Pump};
use crate::seats::Seat;

/// How long a connection may be without a request.
const BETWEEN_REQUESTS: Duration = Duration::from_secs(60);
/// How long a request head may take from its first byte.
const FOR_A_HEAD: Duration = Duration::from_secs(5);
/// How long connecting to an origin may take, all its addresses together.
const FOR_CONNECTING: Duration = Duration::from_secs(30);
/// How long the other side may take nothing of a head.
pub(crate) const FOR_WRITING: Duration = Duration::from_secs(60);
/// Longest method that a web server is taken to know.
const MAX_METHOD_BYTES: usize = 32;
/// Room for a head that is handed on: what we add to it (Via, framing) included.
pub(crate) const OUT_BYTES: usize = MAX_HEAD_BYTES + 512;

/// A connection to an origin that can be used for requests.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) link: Connected,
    pub(crate) inbox: Inbox,
    /// Whether it has served a request before: then it may be closed by the time that the next one arrives.
    pub(crate) used: bool,
}

/// What becomes of the client's connection after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// It waits for the next request.
    Request,
    /// It was the last one; the client has all of the answer.
    Close,
    /// The client has less than it was promised: close at once.
    Abort,
}

struct Connection<'s> {
    /// The configuration of the present request.
    shared: Arc<Shared>,
    client: Arc<TcpStream>,
    seat: &'s Seat,
    inbox: Inbox,
    /// Where a redirected connection was going, and which names lead there.
    redirected: Option<(SocketAddr, Names)>,
    /// The connection of the last request, for further ones to the same authority.
    kept: Option<(String, Origin)>,
}

/// Serves a client's connection until its end; `destination` is where it was going if it was redirected.
pub fn connection(
    hub: &Hub,
    client: Arc<TcpStream>,
    from: SocketAddr,
    destination: Option<SocketAddr>,
    seat: &Seat,
) {
    let redirected = destination.map(|destination| (destination, Names::new(destination)));
    let inbox = Inbox::new(MAX_HEAD_BYTES);
    let mut connection = Connection { shared: hub.current(), client, seat, inbox, redirected, kept: None };
    let mut is_first = true;
    loop {
        let head = match connection.head(is_first) {
            Ok(Some(head)) => head,
            Ok(None) if is_first && connection.is_foreign() => return connection.pass_through(from),
            Ok(None) => return,
            Err(refuse) => return connection.close_with(&Trouble::Refused(refuse), false, from),
        };
        is_first = false;
        // The configuration may have changed since the last request.
        let shared = hub.current();
        if !Arc::ptr_eq(&shared, &connection.shared) {
            (connection.shared, connection.kept) = (shared, None);
            if !connection.shared.is_client(from) {
                return connection.close_with(&Trouble::Refused(Refuse::Client), false, from);
            }
        }
        // It parsed a moment ago, when its length was found.
        let Ok(Some((request, _))) = Request::parse(&head) else { return };
        match connection.request(&request) {
            Ok(Next::Request) => {}
            Ok(Next::Close) => return answer::linger(&connection.client),
            Ok(Next::Abort) => return,
            Err(trouble) => return connection.close_with(&trouble, request.method == "HEAD", from),
        }
        if connection.shared.live.is_stopping() {
            return;
        }
    }
}

impl Connection<'_> {
    /// The next request's head; `None` if the client has no more, or if the first bytes of a redirected connection are
    /// none that the proxy has to do with.
    fn head(&mut self, is_first: bool) -> Result<Option<Vec<u8>>, Refuse> {
        let mut deadline = Instant::now() + BETWEEN_REQUESTS;
        let mut begun = false;
        self.seat.set_idle(Some(Instant::now()));
        loop {
            // Some clients send an empty line after a body: it is not the beginning of a request.
            while !begun && self.inbox.data().starts_with(b"\r\n") {
                self.inbox.consume(2);
            }
            if !begun && !self.inbox.data().is_empty() {
                (begun, deadline) = (true, Instant::now() + FOR_A_HEAD);
                self.seat.set_idle(None);
            }
            if is_first && self.is_foreign() {
                return Ok(None);
            }
            if let Some((_, length)) = Request::parse(self.inbox.data()).map_err(Refuse::Head)? {
                let head = self.inbox.data().get(..length).unwrap_or_default().to_vec();
                self.inbox.consume(length);
                return Ok(Some(head));
            }
            if self.inbox.is_full() {
                return Err(Refuse::HeadTooLarge);
            }
            match self.inbox.fill(&self.client) {
                Ok(Moved::Bytes(_)) => {}
                Ok(Moved::WouldBlock) => match net::await_readable(&self.client, deadline) {
                    Ok(()) => {}
                    Err(_) if begun => return Err(Refuse::Timeout),
                    Err(_) => return Ok(None),
                },
                Ok(Moved::End) | Err(_) => return Ok(None),
            }
        }
    }

    /// Whether what has come on a redirected connection is no request to a web server, so far as can be told yet.
    fn is_foreign(&self) -> bool {
        self.redirected.is_some() && is_foreign(self.inbox.data())
    }

    /// Passes on what is no request to where the connection was going, and what comes from there.
    fn pass_through(&mut self, from: SocketAddr) {
        let Some(destination) = self.destination() else { return };
        log::debug!("{from}: passed through to {destination}: no request to a web server");
        match self.open_at(&[destination]) {
            Ok(mut origin) => {
                tunnel(&self.client, &mut self.inbox, &mut origin);
            }
            Err(trouble) => self.close_with(&trouble, false, from),
        }
    }

    fn destination(&self) -> Option<SocketAddr> {
        self.redirected.as_ref().map(|(destination, _)| *destination)
    }

    fn close_with(&self, trouble: &Trouble, head_only: bool, from: SocketAddr) {
        let counters = &self.shared.counters;
        match trouble {
            Trouble::Refused(_) | Trouble::NotAServer | Trouble::NotRedirected => {
                counters.refused.fetch_add(1, Ordering::Relaxed)
            }
            _ => counters.failed.fetch_add(1, Ordering::Relaxed),
        };
        log::info!("{from}: {} {trouble}", trouble.status().0);
        if let (Trouble::Unreachable(OriginError::Unreachable(_)), Some(_)) = (trouble, &self.redirected) {
            // The client would have had no connection; ours is to be as good as none.
            return net::reset_on_close(&self.client);
        }
        if answer::send(&self.client, trouble, head_only).is_ok() {
            answer::linger(&self.client);
        }
    }

    fn request(&mut self, request: &Request<'_>) -> Result<Next, Trouble> {
        let Admitted { target, body } = admit(request, &self.shared.via).map_err(Trouble::Refused)?;
        self.shared.counters.requests.fetch_add(1, Ordering::Relaxed);
        match target {
            Target::Absolute(uri) => self.forward(request, &uri, body),
            Target::Origin(uri) if self.redirected.is_some() => self.forward(request, &uri, body),
            Target::Authority(_) if self.redirected.is_some() => Err(Trouble::NotAServer),
            Target::Authority(authority) => self.connect(&authority),
            Target::Origin(_) | Target::Asterisk => Err(Trouble::NotAServer),
        }
    }

    fn open(&self, authority: &Authority<'_>) -> Result<Origin, Trouble> {
        if let Some(destination) = self.destination() {
            return self.open_at(&[destination]);
        }
        let gate = &self.shared.gate;
        let addresses =
            gate.resolve(&authority.host.to_string(), authority.port).map_err(Trouble::Unreachable)?;
        self.open_at(&addresses)
    }

    fn open_at(&self, addresses: &[SocketAddr]) -> Result<Origin, Trouble> {
        let gate = &self.shared.gate;
        let deadline = Instant::now() + FOR_CONNECTING;
        let link = gate.connect(addresses, &self.shared.live, deadline).map_err(Trouble::Unreachable)?;
        Ok(Origin { link, inbox: Inbox::new(MAX_HEAD_BYTES), used: false })
    }

    /// CONNECT (RFC 9110 section 9.3.6).
    fn connect(&mut self, authority: &Authority<'_>) -> Result<Next, Trouble> {
        if !self.shared.config.connect_ports.contains(&authority.port) {
            return Err(Trouble::Refused(Refuse::ConnectPort));
        }
        self.kept = None;
        let mut origin = self.open(authority)?;
        let answer = b"HTTP/1.1 200 Connection established\r\n\r\n";
        if net::write_all(&self.client, answer, FOR_WRITING).is_err() {
            return Ok(Next::Abort);
        }
        Ok(tunnel(&self.client, &mut self.inbox, &mut origin))
    }

    /// Every other method: hands the request on and the response back.
    fn forward(&mut self, request: &Request<'_>, uri: &Uri<'_>, body: BodyLength) -> Result<Next, Trouble> {
        let mut head = vec![0; OUT_BYTES];
        let upgrade = forward::wants_upgrade(&request.fields);
        let mut writer = HeadWriter::new(&mut head);
        let hop = Hop { via: &self.shared.via, upgrade, close: false };
        forward::request(&mut writer, request, uri, body, hop);
        let length = writer.finish().map_err(|_| Trouble::Refused(Refuse::HeadTooLarge))?;
        head.truncate(length);
        head.shrink_to_fit(); // it stays for as long as the response takes

        if let Some((_, names)) = &mut self.redirected
            && may_be_pooled(&self.shared, request, uri)
        {
            names.ask(&uri.authority(), &self.shared.live);
        }
        let key = uri.authority().to_string();
        // A kept connection may be closed by the time that the request arrives. Only requests that can be sent
        // again go there (RFC 9110 section 9.2.2).
        let repeatable = matches!(request.method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
            && matches!(body, BodyLength::None | BodyLength::Exact(0))
            && !upgrade;
        let kept = self.kept.take().filter(|(authority, origin)| {
            repeatable && *authority == key && net::is_quiet(&origin.link.socket)
        });
        let mut origin = match kept {
            Some((_, origin)) => origin,
            None => self.open(&uri.authority())?,
        };
        let (client, shared) = (&*self.client, &self.shared);
        let names = self.redirected.as_ref().map(|(_, names)| names);
        let exchange = Exchange { shared, client, request, uri, body, upgrade, names };
        loop {
            match exchange.run(&mut self.inbox, &head, &mut origin)? {
                Outcome::Done { next, origin_reusable } => {
                    if origin_reusable && next == Next::Request {
                        self.kept = Some((key, Origin { used: true, ..origin }));
                    }
                    return Ok(next);
                }
                Outcome::Upgraded => return Ok(tunnel(&self.client, &mut self.inbox, &mut origin)),
                Outcome::Stale => origin = self.open(&uri.authority())?,
            }
        }
    }
}

/// Whether the beginning of a redirected connection is no HTTP/1 request to a web server: another protocol, or a request
/// to a proxy elsewhere. Undecided bytes are none of these yet.
fn is_foreign(bytes: &[u8]) -> bool {
    let is_token = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    let (line, is_whole) = match bytes.iter().position(|b| *b == b'\n') {
        Some(end) => (bytes.get(..end).unwrap_or_default().trim_ascii_end(), true),
        None => (bytes, false),
    };
    let mut words = line.split(|b| *b == b' ');
    let (method, target, version) = (words.next().unwrap_or_default(), words.next(), words.next());
    if method.len() > MAX_METHOD_BYTES || !method.iter().all(is_token) {
        return true;
    }
    if target.is_some_and(|target| !target.is_empty() && target.first() != Some(&b'/')) {
        return true;
    }
    if is_whole && !version.is_some_and(|version| version.starts_with(b"HTTP/1.")) {
        return true;
    }
    // An old client that gives no name, or none that we understand: the server may.
    matches!(Request::parse(bytes), Ok(Some((request, _))) if Target::of(&request).is_err())
}

/// Passes on bytes both ways until the end.
fn tunnel(client: &TcpStream, inbox: &mut Inbox, origin: &mut Origin) -> Next {
    let far = &origin.link.socket;
    let mut up = Pump::tunnel(client, inbox, far);
    let mut down = Pump::tunnel(far, &mut origin.inbox, client);
    if let Err(error) = relay::tunnel(&mut up, &mut down) {
        log::debug!("a tunnel ended: {error}");
    }
    Next::Abort // both ends have been told already
}

#[cfg(test)]
mod tests {
    use super::is_foreign;

    #[test]
    fn what_is_no_request_to_a_web_server() {
        let requests: [&[u8]; 8] = [
            b"",
            b"G",
            b"GET /",
            b"GET / HTTP/1.1\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\n",
            b"GET / HTTP/1.1\r\nX : y\r\n\r\n",
            b"PROPFIND /a b HTTP/1.1\r\nHost: x\r\n\r\n".split_at(11).0,
        ];
        for bytes in requests {
            assert!(!is_foreign(bytes), "{:?}", String::from_utf8_lossy(bytes));
        }
        let foreign: [&[u8]; 10] = [
            b"\x16\x03\x01\x02\x00",
            b"SSH-2.0-x\r\n",
            b"EHLO me\r\n",
            b"GET /\r\n",
            b"GET http://x/ HTTP/1.1\r\n",
            b"CONNECT x:443 HTTP/1.1\r\n",
            b"OPTIONS * HTTP/1.1\r\n",
            b"PRI * HTTP/2.0\r\n",
            b"GET / HTTP/1.1\r\n\r\n",
            b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        ];
        for bytes in foreign {
            assert!(is_foreign(bytes), "{:?}", String::from_utf8_lossy(bytes));
        }
    }
}
