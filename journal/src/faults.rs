//! Named faults, for tests: places where the process can be made to end, and mistakes that can be switched on.
//!
//! With the feature `faults` the environment says what happens; it is read once. Without the feature both functions are
//! empty, and nothing of them is left in the program.
//!
//! - `LEVERET_CRASH_POINT=name@3` ends the process, as a kill would, when it comes to that place for the third time.
//! - `LEVERET_MUTANT=name` makes the mistake of that name, which some test must then find.

#[cfg(feature = "faults")]
pub use armed::{crash_point, mutant};

/// A place where a test can end the process. Without the feature `faults` it is nothing.
#[cfg(not(feature = "faults"))]
pub const fn crash_point(_name: &str) {}

/// Whether the mistake of this name is to be made. Without the feature `faults` none is.
#[cfg(not(feature = "faults"))]
pub const fn mutant(_name: &str) -> bool {
    false
}

#[cfg(feature = "faults")]
mod armed {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// The place at which to end, and how often it is still passed before.
    static CRASH: LazyLock<Option<(String, AtomicU64)>> = LazyLock::new(|| {
        let asked = std::env::var("LEVERET_CRASH_POINT").ok()?;
        let (name, hit) = asked.split_once('@')?;
        Some((name.to_owned(), AtomicU64::new(hit.parse().ok()?)))
    });

    static MUTANT: LazyLock<Option<String>> = LazyLock::new(|| std::env::var("LEVERET_MUTANT").ok());

    /// A place where a test can end the process.
    pub fn crash_point(name: &str) {
        let Some((wanted, hits)) = &*CRASH else { return };
        // As abrupt as a kill: nothing is unwound, dropped or flushed.
        if wanted == name && hits.fetch_sub(1, Ordering::Relaxed) == 1 {
            std::process::abort();
        }
    }

    /// Whether the mistake of this name is to be made.
    pub fn mutant(name: &str) -> bool {
        MUTANT.as_deref() == Some(name)
    }
}
