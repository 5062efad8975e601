//! Makes up a file of sales: the same one each time, so that it need not be kept.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;

/// Of so many rows one is no sale.
const REJECTED_ONE_IN: u64 = 1_000;

/// Writes a file of so many rows, sales of two weeks and a few rows that are none.
pub fn generate(path: &Path, rows: u64) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    writeln!(file, "customer,amount,day")?;
    let mut random = Random(20_260_101);
    for _ in 0..rows {
        let customer = 1 + random.below(4_000);
        let (euros, cents) = (random.below(300), random.below(100));
        let day = 1 + random.below(14);
        if random.below(REJECTED_ONE_IN) > 0 {
            writeln!(file, "C-{customer:05},{euros}.{cents:02},2026-01-{day:02}")?;
            continue;
        }
        match random.below(3) {
            0 => writeln!(file, "C-{customer:05},n/a,2026-01-{day:02}")?,
            1 => writeln!(file, "C-{customer:05},{euros}.{cents:02},2026-02-30")?,
            _ => writeln!(file, "C-{customer:05},{euros}.{cents:02}")?,
        }
    }
    file.flush()
}

/// The same numbers on every machine and with every version of every crate: xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % end
    }
}
