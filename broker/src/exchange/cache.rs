//! What was resolved lately, so that most messages need no routing at all.

use std::hash::Hasher;

use rustc_hash::FxHasher;

/// A small table of what (exchange, routing key) was resolved to, for the one task that owns it.
///
/// Each key has one slot that it can stand in, so a look-up is one hash and one comparison, and memory is
/// bounded: an idle cache has none, a full one has one entry a slot. All entries are of one generation of the
/// router. The first use with another generation drops them: an old entry would misroute, and would keep
/// alive the queues that it names after they were deleted.
#[derive(Debug)]
pub struct RouteCache<R> {
    /// Empty until the first insertion: a connection that only consumes pays nothing.
    slots: Vec<Option<Box<Entry<R>>>>,
    /// The slots in use, so that dropping them costs no more than they are.
    used: Vec<usize>,
    /// How many slots there will be; a power of two.
    slots_max: usize,
    generation: u64,
}

#[derive(Debug)]
struct Entry<R> {
    /// The exchange's name, and the routing key behind it.
    name: String,
    exchange_bytes: usize,
    resolved: R,
    /// The hash of the last key that wanted this slot and did not get it.
    rival: Option<u64>,
}

impl<R> RouteCache<R> {
    /// How many slots a cache has by default.
    pub const SLOTS: usize = 512;

    /// A cache with at least this many slots; the number is rounded up to a power of two.
    pub fn with_slots(slots: usize) -> Self {
        Self { slots: Vec::new(), used: Vec::new(), slots_max: slots.next_power_of_two(), generation: 0 }
    }

    /// What the key was resolved to at this generation of the router.
    pub fn get(&mut self, generation: u64, exchange: &str, key: &str) -> Option<&R> {
        self.enter(generation);
        if self.used.is_empty() {
            return None;
        }
        let slot = self.slot(hash(exchange, key));
        let entry = self.slots.get(slot)?.as_ref()?;
        entry.is_for(exchange, key).then_some(&entry.resolved)
    }

    /// Remembers what the key was resolved to at this generation of the router.
    ///
    /// A key that finds its slot taken gets it when it comes a second time in a row: keys that are used once,
    /// such as those of replies, must not drive out the ones that are used all the time.
    pub fn insert(&mut self, generation: u64, exchange: &str, key: &str, resolved: R) {
        self.enter(generation);
        if self.slots.is_empty() {
            self.slots.resize_with(self.slots_max, || None);
        }
        let hash = hash(exchange, key);
        let slot = self.slot(hash);
        match self.slots.get_mut(slot) {
            Some(Some(entry)) if entry.is_for(exchange, key) => entry.resolved = resolved,
            Some(Some(entry)) if entry.rival != Some(hash) => entry.rival = Some(hash),
            Some(Some(entry)) => entry.assign(exchange, key, resolved),
            Some(free) => {
                *free = Some(Box::new(Entry::new(exchange, key, resolved)));
                self.used.push(slot);
            }
            None => {}
        }
    }

    fn enter(&mut self, generation: u64) {
        if self.generation != generation {
            self.generation = generation;
            for slot in self.used.drain(..) {
                if let Some(slot) = self.slots.get_mut(slot) {
                    *slot = None;
                }
            }
        }
    }

    fn slot(&self, hash: u64) -> usize {
        hash as usize & (self.slots_max - 1)
    }
}

impl<R> Default for RouteCache<R> {
    fn default() -> Self {
        Self::with_slots(Self::SLOTS)
    }
}

impl<R> Entry<R> {
    fn new(exchange: &str, key: &str, resolved: R) -> Self {
        Self { name: [exchange, key].concat(), exchange_bytes: exchange.len(), resolved, rival: None }
    }

    fn is_for(&self, exchange: &str, key: &str) -> bool {
        let name = self.name.split_at_checked(self.exchange_bytes);
        name.is_some_and(|(its_exchange, its_key)| same(its_exchange, exchange) && same(its_key, key))
    }

    /// Keeps the name's memory, so that a busy slot does not allocate for every new key.
    fn assign(&mut self, exchange: &str, key: &str, resolved: R) {
        self.name.clear();
        self.name.push_str(exchange);
        self.name.push_str(key);
        self.exchange_bytes = exchange.len();
        self.resolved = resolved;
        self.rival = None;
    }
}

/// Whether two names are equal. The default exchange has none, and some processors take long to compare nothing with
/// nothing: AVX-512 loads that are masked out are slow if they point nowhere, as those of empty strings do.
pub fn same(a: &str, b: &str) -> bool {
    a.len() == b.len() && (a.is_empty() || a == b)
}

/// The hash needs no secret, unlike that of a table that grows: keys that collide share a slot, and the worst
/// that a forger gets is that his own connection finds nothing here.
fn hash(exchange: &str, key: &str) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(exchange.as_bytes());
    hasher.write(key.as_bytes());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exchange_and_the_key_are_told_apart() {
        let mut cache = RouteCache::with_slots(1);
        cache.insert(1, "ab", "c", "ab/c");
        assert_eq!(cache.get(1, "ab", "c"), Some(&"ab/c"));
        for (exchange, key) in [("a", "bc"), ("abc", ""), ("", "abc"), ("ab", "cd"), ("ab", "")] {
            assert_eq!(cache.get(1, exchange, key), None, "{exchange:?} {key:?}");
        }
    }

    #[test]
    fn a_new_generation_drops_every_entry_at_once() {
        let value = std::sync::Arc::new(());
        let mut cache = RouteCache::default();
        for key in 0..100 {
            cache.insert(1, "logs", &key.to_string(), std::sync::Arc::clone(&value));
        }
        assert!(cache.get(1, "logs", "7").is_some());
        assert!(cache.get(2, "logs", "7").is_none());
        assert_eq!(std::sync::Arc::strong_count(&value), 1, "deleted queues must not live on in a cache");
        assert!(cache.get(1, "logs", "7").is_none(), "nor come back");
    }

    #[test]
    fn any_number_of_keys_stays_within_the_slots() {
        let value = std::sync::Arc::new(());
        let mut cache = RouteCache::with_slots(5);
        for key in 0..1000 {
            for _ in 0..2 {
                cache.insert(1, "", &key.to_string(), std::sync::Arc::clone(&value));
            }
            assert!(cache.get(1, "", &key.to_string()).is_some(), "{key} came twice in a row");
        }
        assert_eq!(std::sync::Arc::strong_count(&value), 1 + 8);
    }

    #[test]
    fn keys_that_come_once_do_not_drive_out_one_that_stays() {
        let mut cache = RouteCache::with_slots(1);
        cache.insert(1, "orders", "paid", 0);
        for reply in 1..1000 {
            cache.insert(1, "", &format!("reply-{reply}"), reply);
            assert_eq!(cache.get(1, "orders", "paid"), Some(&0));
        }
    }
}
