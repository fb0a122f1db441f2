//! Log of a story, and its checksum: two runs with the same checksum did the same.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Copies are the same trace.
#[derive(Clone, Debug)]
pub(crate) struct Trace(Arc<Mutex<Lines>>);

#[derive(Debug)]
struct Lines {
    began: Instant,
    /// FNV-1a: it must not be random.
    sum: u64,
    told: bool,
    failures: Vec<String>,
}

impl Trace {
    /// Begins a log, which is printed at once if `told`.
    pub(crate) fn begin(told: bool) -> Trace {
        let lines = Lines { began: Instant::now(), sum: 0xcbf2_9ce4_8422_2325, told, failures: Vec::new() };
        Trace(Arc::new(Mutex::new(lines)))
    }

    pub(crate) fn tell(&self, line: impl fmt::Display) {
        let mut lines = self.0.lock();
        let line = format!("{:>7} {line}", lines.began.elapsed().as_millis());
        for byte in line.bytes() {
            lines.sum = (lines.sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if lines.told {
            println!("{line}");
        }
    }

    /// Something that must not be.
    pub(crate) fn fail(&self, what: impl fmt::Display) {
        self.tell(format_args!("FAILED {what}"));
        self.0.lock().failures.push(what.to_string());
    }

    pub(crate) fn sum(&self) -> u64 {
        self.0.lock().sum
    }

    pub(crate) fn failures(&self) -> Vec<String> {
        self.0.lock().failures.clone()
    }

    pub(crate) fn failed(&self) -> bool {
        !self.0.lock().failures.is_empty()
    }
}
