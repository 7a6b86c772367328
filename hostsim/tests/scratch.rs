use bamqp_core::time::*;
use hostsim::model::world::*;
fn run(links:&[u64], rtts:&[u64], size:u64, window:usize, hold:u32, f: impl Fn(&mut World)) {
    let mut w = World::default();
    for (i,l) in links.iter().enumerate() { w.net.add_line(l*125_000, Span::from_millis(rtts[i%rtts.len()])); }
    f(&mut w);
    w.start(Instant::default(), Job{own:0, peers:(1..links.len()).collect(), range:0..size, window, hold, socket: 256*1024, client_rate:0, accept: Span::from_millis(2)});
    let r = w.run(Instant::from_micros(1_000_000_000));
    let r = &r[&0];
    let sum: u64 = links.iter().sum::<u64>()*125_000;
    let t = r.ended.since(r.began).as_micros() as f64/1e6;
    let after = (r.bytes-r.after_a_second) as f64/(t-1.0)/sum as f64;
    println!("{links:?} {rtts:?} W{} h{}: {:?} t={t:.2} eff={:.3} after1s={after:.3} first={:?} stand={} used={} reorder {:.2} {:.2}", window>>10, hold>>10, r.outcome, size as f64/t/sum as f64, r.first_byte, r.standstill.as_millis(), r.window_used>>10, r.reorder.mean_displacement(), r.reorder.mean_occupancy());
    for (k,s,l) in &r.lanes { println!("     {k:?} {s:?} {l:?}"); }
}
#[test]
fn scratch() {
    for rtt in [0,40,100] { run(&[20,15,10,5], &[rtt], 64<<20, 1<<20, 128<<10, |_|{}); }
    for rtt in [0,40,100] { run(&[20,15,10,5], &[rtt], 64<<20, 1<<20, 0, |_|{}); }
    run(&[20,15,10,5], &[30], 20<<20, 1<<20, 128<<10, |_|{});
}
