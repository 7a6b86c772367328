//! One pooled download of this household: takes over when [`bamqp_core::decide`] says so. Not responsible for heads;
//! client and origin have exchanged theirs.

use core::net::SocketAddr;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use bamqp_core::address::Refusal;
use bamqp_core::decide::{Pool, Situation};
use bamqp_core::http::body::BodyLength;
use bamqp_core::http::body_scan::BodyScanner;
use bamqp_core::http::target::Uri;
use bamqp_core::time::Span;

use crate::daemon::Shared;
use crate::inbox::Inbox;
use crate::relay::{self, Pump, RelayError};

/// A download to be pooled, as the proxy hands it over: the response head and `body_start` are with the client.
#[derive(Debug)]
pub struct Job<'a> {
    /// The client's connection, non-blocking.
    pub client: &'a TcpStream,
    /// The origin's connection, non-blocking, on which the body goes on.
    pub origin: Arc<TcpStream>,
    /// Where that connection leads: further ones of the own link go to the same address.
    pub origin_address: SocketAddr,
    /// How long its handshake took.
    pub connect_time: Duration,
    /// The body's first bytes, which came with the head. The client has them already.
    pub body_start: &'a [u8],
    /// Which bytes of how large a file the body is, and under which validator.
    pub pool: Pool,
    /// The file.
    pub uri: Uri<'a>,
    /// The client's `User-Agent`, for the lanes' requests.
    pub user_agent: Option<&'a [u8]>,
    /// The client's `Accept`, for the lanes' requests.
    pub accept: Option<&'a [u8]>,
}

/// How a pooled download ended, if it ended well: the client has every byte.
#[derive(Debug)]
pub struct Done {
    /// Whether the origin's connection stands after the end of its response and can be used again.
    pub origin_reusable: bool,
}

/// What the decision depends on besides the heads; `address` is whether peers may reach the origin.
pub fn situation(shared: &Shared, address: Result<(), Refusal>) -> Situation {
    Situation {
        address,
        peers: shared.config.peers.len(),
        min_size: shared.config.min_size,
        own_rate: None,
        start_up: Span::from_millis(100),
    }
}

/// Brings the client the rest of the body.
///
/// # Errors
/// Why it doesn't have all of it; its connection has to be closed.
pub fn aggregate(_shared: &Shared, job: Job<'_>) -> Result<Done, RelayError> {
    let rest = (job.pool.range.end - job.pool.range.start).saturating_sub(job.body_start.len() as u64);
    let mut nothing = Inbox::new(1);
    let scanner = BodyScanner::new(BodyLength::Exact(rest));
    let mut response = Pump::new(&job.origin, &mut nothing, job.client, scanner).bulk();
    relay::exchange(&mut response, None)?;
    Ok(Done { origin_reusable: true })
}
