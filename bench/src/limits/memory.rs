//! What memory and checksums cost. What the broker's core costs without sockets and disk is measured by the
//! micro-benchmarks of the crates, which can reach it.

use std::hint::black_box;
use std::time::Duration;

use crate::measure::clock::Clock;
use crate::measure::float;

const SIZES: [usize; 3] = [256, 1024, 64 * 1024];
/// More than any cache close to the core, so that sources are not always there already.
const SOURCE_BYTES: usize = 64 << 20;
const TIME: Duration = Duration::from_millis(300);

pub(super) fn run() {
    let source = vec![7; SOURCE_BYTES];
    for size in SIZES {
        let mut target = vec![0; size];
        report("memcpy", size, &source, &mut |piece| {
            target.copy_from_slice(piece);
            black_box(&mut target);
        });
    }
    for size in SIZES {
        report("crc32c", size, &source, &mut |piece| {
            black_box(crc32c::crc32c(piece));
        });
    }
}

fn report(what: &str, size: usize, source: &[u8], each: &mut dyn FnMut(&[u8])) {
    let clock = Clock::start();
    let mut count = 0;
    while clock.elapsed() < TIME {
        for piece in source.chunks_exact(size).take(1024) {
            each(piece);
            count += 1;
        }
    }
    let nanos = float(clock.nanos());
    let bytes = float(count * size as u64);
    println!("{what}, {size} B: {:.1} GB/s, {:.0} ns each", bytes / nanos, nanos / float(count));
}
