//! The side of the household's clients: one connection of a client, request by request. Not responsible for what
//! happens between a request and its response (`exchange`).

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
use crate::daemon::Shared;
use crate::exchange::{Exchange, Outcome};
use crate::inbox::Inbox;
use crate::net::{self, Moved};
use crate::origin::Connected;
use crate::relay::{self, Pump};

/// How long a connection may be without a request.
const BETWEEN_REQUESTS: Duration = Duration::from_secs(60);
/// How long a request head may take from its first byte.
const FOR_A_HEAD: Duration = Duration::from_secs(5);
/// How long connecting to an origin may take, all its addresses together.
const FOR_CONNECTING: Duration = Duration::from_secs(30);
/// How long the other side may take nothing of a head.
pub(crate) const FOR_WRITING: Duration = Duration::from_secs(60);
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
    shared: &'s Arc<Shared>,
    client: Arc<TcpStream>,
    inbox: Inbox,
    /// The connection of the last request, for further ones to the same authority.
    kept: Option<(String, Origin)>,
}

/// Serves a client's connection until its end.
pub fn connection(shared: &Arc<Shared>, client: Arc<TcpStream>, from: SocketAddr) {
    let mut connection = Connection { shared, client, inbox: Inbox::new(MAX_HEAD_BYTES), kept: None };
    loop {
        let head = match connection.head() {
            Ok(Some(head)) => head,
            Ok(None) => return,
            Err(refuse) => return connection.close_with(&Trouble::Refused(refuse), false, from),
        };
        // It parsed a moment ago, when its length was found.
        let Ok(Some((request, _))) = Request::parse(&head) else { return };
        match connection.request(&request) {
            Ok(Next::Request) => {}
            Ok(Next::Close) => return answer::linger(&connection.client),
            Ok(Next::Abort) => return,
            Err(trouble) => return connection.close_with(&trouble, request.method == "HEAD", from),
        }
        if shared.live.is_stopping() {
            return;
        }
    }
}

impl Connection<'_> {
    /// The next request's head; `None` if the client has no more.
    fn head(&mut self) -> Result<Option<Vec<u8>>, Refuse> {
        let mut deadline = Instant::now() + BETWEEN_REQUESTS;
        let mut begun = false;
        loop {
            // Some clients send an empty line after a body: it is not the beginning of a request.
            while !begun && self.inbox.data().starts_with(b"\r\n") {
                self.inbox.consume(2);
            }
            if !begun && !self.inbox.data().is_empty() {
                (begun, deadline) = (true, Instant::now() + FOR_A_HEAD);
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

    fn close_with(&self, trouble: &Trouble, head_only: bool, from: SocketAddr) {
        let counters = &self.shared.counters;
        match trouble {
            Trouble::Refused(_) | Trouble::NotAServer => counters.refused.fetch_add(1, Ordering::Relaxed),
            _ => counters.failed.fetch_add(1, Ordering::Relaxed),
        };
        log::info!("{from}: {} {trouble}", trouble.status().0);
        if answer::send(&self.client, trouble, head_only).is_ok() {
            answer::linger(&self.client);
        }
    }

    fn request(&mut self, request: &Request<'_>) -> Result<Next, Trouble> {
        let Admitted { target, body } = admit(request, &self.shared.via).map_err(Trouble::Refused)?;
        self.shared.counters.requests.fetch_add(1, Ordering::Relaxed);
        match target {
            Target::Absolute(uri) => self.forward(request, &uri, body),
            Target::Authority(authority) => self.connect(&authority),
            Target::Origin(_) | Target::Asterisk => Err(Trouble::NotAServer),
        }
    }

    fn open(&self, authority: &Authority<'_>) -> Result<Origin, Trouble> {
        let gate = &self.shared.gate;
        let addresses =
            gate.resolve(&authority.host.to_string(), authority.port).map_err(Trouble::Unreachable)?;
        let deadline = Instant::now() + FOR_CONNECTING;
        let link = gate.connect(&addresses, &self.shared.live, deadline).map_err(Trouble::Unreachable)?;
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
        let client = &*self.client;
        let exchange = Exchange { shared: self.shared, client, request, uri, body, upgrade };
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
