//! Hostsim's origin by itself, for routers that are started by hand: serves one file under every path, and paces each
//! source address like its own internet link. Runs until it is killed.

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;

use bamqp_core::time::Span;
use hostsim::link::Link;
use hostsim::origin::Origin;

const USAGE: &str = "expected LISTEN FILE SOURCE=MBITS[@RTT_MS]…, \
                     e.g. 127.9.255.1:8080 file 127.9.0.1=20@30 127.9.1.1=15";

fn main() -> ExitCode {
    match run(std::env::args().skip(1).collect()) {
        Ok(_origin) => loop {
            std::thread::park();
        },
        Err(line) => {
            eprintln!("paced-origin: {line}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: Vec<String>) -> Result<Origin, String> {
    let [listen, file, links @ ..] = arguments.as_slice() else { return Err(USAGE.into()) };
    let listen: SocketAddr = listen.parse().map_err(|_| USAGE)?;
    let links: Vec<_> = links.iter().map(|text| link(text).ok_or(USAGE)).collect::<Result<_, _>>()?;
    let bytes = std::fs::read(file).map_err(|error| format!("{file}: {error}"))?;
    Origin::start(listen, bytes.into(), links).map_err(|error| format!("{listen}: {error}"))
}

fn link(text: &str) -> Option<(IpAddr, Link)> {
    let (source, rest) = text.split_once('=')?;
    let (mbits, rtt) = rest.split_once('@').unwrap_or((rest, "0"));
    let (mbits, rtt): (f64, u64) = (mbits.parse().ok()?, rtt.parse().ok()?);
    (mbits > 0.0).then_some(())?;
    Some((source.parse().ok()?, Link::new((mbits * 125_000.0) as u64, Span::from_millis(rtt))))
}
