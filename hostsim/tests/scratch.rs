use bamqp_core::time::*;
use hostsim::model::world::*;
fn run(links:&[u64], rtts:&[u64], size:u64, window:usize, hold:u32, f: impl Fn(&mut World)) {
    let mut w = World::default();
    for (i,l) in links.iter().enumerate() { w.net.add_line(l*125_000, Span::from_millis(rtts[i%rtts.len()])); }
    f(&mut w);
    w.start(Instant::default(), Job{own:0, peers:(1..links.len()).collect(), range:0..size, window, hold, socket: 256*1024, client_rate:0, accept: Span::from_millis(2)});
    if std::env::var("TRACE").is_ok() { for i in 1..200 {
       if !w.run(Instant::from_micros(i*50_000)).is_empty() {break;}
       print!("{:.2}", i as f64*0.05);
       for (k,s,st,p) in w.lanes(0) { print!("  {:?}/{:?} r{:.1} rtt{} owed{}k b{}", k,match s {bamqp_core::transfer::LaneState::Up=>"U",bamqp_core::transfer::LaneState::Joining=>"J",_=>"?"},p.rate as f64*8e-6,p.rtt.as_millis(),p.owed>>10, st.bytes>>10); }
       println!();
    } return; }
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
    let at = |ms: u64| Instant::from_micros(ms*1000);
    for rtt in [0,40,100] { 
      println!("== rtt {rtt}");
      let go = |name: &str, f: &dyn Fn(&mut World)| { print!("{name:10}"); run(&[20,15,10,5], &[rtt], 64<<20, 1<<20, 128<<10, f); };
      go("none", &|_|{});
      go("dead C", &|w| w.happen(at(4000), Happening::Down(2)));
      go("hole C", &|w| w.happen(at(4000), Happening::Rate(2,0)));
      go("slow B", &|w| w.happen(at(4000), Happening::Rate(1,187_500)));
      go("flap B", &|w| {w.happen(at(4000), Happening::Rate(1,0));w.happen(at(6000), Happening::Rate(1,15*125_000));});
      go("dead A", &|w| w.happen(at(4000), Happening::Down(0)));
      go("hole A", &|w| w.happen(at(4000), Happening::Rate(0,0)));
      go("slow A", &|w| w.happen(at(4000), Happening::Rate(0,250_000)));
      go("oneshot", &|w| for i in 0..4 {w.happen(at(0), Happening::Refuse(i,403))});
      go("refuse B", &|w| for i in 1..2 {w.happen(at(0), Happening::Refuse(i,403))});
      go("change", &|w| w.happen(at(4000), Happening::Change));
      go("all dead", &|w| for i in 0..4 {w.happen(at(4000), Happening::Down(i))});
    }
}
