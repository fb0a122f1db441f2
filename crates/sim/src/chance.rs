//! Source of randomness: in a thread that plays a seed, all of it comes from that seed.
//!
//! Hash maps, `select!`, ids, salts and the patience of candidates are random; all of them ask the operating system at first, by
//! `getrandom`. Here that function is ours. So nothing in the program that is played needs to know that it is played.

use std::cell::RefCell;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

thread_local! {
    static SEEDED: RefCell<Option<StdRng>> = const { RefCell::new(None) };
}

/// Seeds all randomness of this thread. It must be called before the thread does anything else.
pub(crate) fn seed(seed: u64) {
    SEEDED.with_borrow_mut(|seeded| *seeded = Some(StdRng::seed_from_u64(seed)));
}

/// Takes the place of the C library's function of this name, for the standard library and all others.
#[expect(unsafe_code, reason = "randomness that can be repeated; nothing but this program for tests has it")]
#[unsafe(no_mangle)]
extern "C" fn getrandom(buffer: *mut u8, length: usize, flags: u32) -> isize {
    if length == 0 {
        return 0;
    }
    // SAFETY: by the contract of `getrandom(2)` the caller gives a buffer of this length that may be written.
    let buffer = unsafe { std::slice::from_raw_parts_mut(buffer, length) };
    let seeded = SEEDED.try_with(|seeded| match &mut *seeded.borrow_mut() {
        Some(rng) => {
            rng.fill_bytes(buffer);
            true
        }
        None => false,
    });
    if seeded.unwrap_or(false) {
        return isize::try_from(length).unwrap_or(isize::MAX);
    }
    let filled = rustix::rand::getrandom(buffer, rustix::rand::GetRandomFlags::from_bits_retain(flags));
    filled.map_or(-1, |filled| isize::try_from(filled).unwrap_or(isize::MAX))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    /// Draws a random text.
    fn draw() -> String {
        let set: HashSet<u32> = (0..20).collect();
        format!("{set:?} {}", rand::random::<u64>())
    }

    #[test]
    fn all_chance_of_a_thread_comes_of_its_seed() {
        let seeded = |seed| {
            let thread = std::thread::spawn(move || {
                super::seed(seed);
                draw()
            });
            thread.join().expect("drawn")
        };
        assert_eq!(seeded(1), seeded(1));
        assert_ne!(seeded(1), seeded(2));
        assert_ne!(draw(), std::thread::spawn(draw).join().expect("drawn"));
    }
}
