//! The brake on guessing passwords.
//!
//! It counts failures for each pair of peer address and user. By user alone, anybody could lock a user out by
//! guessing badly; by address alone, one wrong client would slow down everyone behind the same gateway.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

/// The longest delay, in milliseconds; below the time that a handshake may take.
pub const DELAY_MAX_MS: u64 = 8_000;

/// Failures that are answered at once: a person who mistypes, a client that is reconfigured.
const FREE_FAILURES: u32 = 3;
/// The first delay; each further failure doubles it.
const DELAY_FIRST_MS: u64 = 250;
/// After this time without a failure a pair is forgotten.
const FORGET_MS: u64 = 10 * 60 * 1000;
/// The most pairs that are remembered, about a megabyte. Another one takes the place of the one that has been
/// quiet for longest, so forgetting a pair on purpose costs an attacker this many attempts for every guess.
const PAIRS_MAX: usize = 4096;

/// Failed attempts, and when the next answer to each pair is due.
///
/// Every answer takes its turn after the ones before it, so guessing over many connections at once is no faster
/// than over one. That holds for good answers too, else a right guess would show by its speed.
#[derive(Debug, Default, Clone)]
pub struct Throttle {
    pairs: HashMap<(IpAddr, Box<str>), Pair>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Pair {
    failures: u32,
    last_failure_ms: u64,
    /// When the answers given so far are all out.
    answered_ms: u64,
}

impl Throttle {
    /// Counts a failed attempt, and returns how many milliseconds its answer has to wait: at most
    /// [`DELAY_MAX_MS`]. `now_ms` is any clock that does not go back.
    pub fn failed(&mut self, peer: IpAddr, user: &str, now_ms: u64) -> u64 {
        let key = key(peer, user);
        if !self.pairs.contains_key(&key) {
            self.make_room(now_ms);
        }
        let pair = self.pairs.entry(key).or_default();
        if pair.is_forgotten(now_ms) {
            pair.failures = 0;
        }
        pair.failures = pair.failures.saturating_add(1);
        pair.last_failure_ms = now_ms;
        pair.take_turn(now_ms).unwrap_or(DELAY_MAX_MS)
    }

    /// Asks whether an attempt with the right password may succeed, and returns how many milliseconds the good
    /// answer has to wait. The pair's failures are then forgotten.
    ///
    /// With none, so many guesses are waiting that no turn is left within [`DELAY_MAX_MS`]: refuse the attempt
    /// after that time, as if the password were wrong.
    pub fn succeeded(&mut self, peer: IpAddr, user: &str, now_ms: u64) -> Option<u64> {
        let key = key(peer, user);
        let Some(pair) = self.pairs.get_mut(&key).filter(|pair| !pair.is_forgotten(now_ms)) else {
            return Some(0);
        };
        let delay = pair.take_turn(now_ms)?;
        self.pairs.remove(&key);
        Some(delay)
    }

    /// Keeps the table within its limit before a pair is added. Walking it takes microseconds, and only failed
    /// attempts of new pairs do.
    fn make_room(&mut self, now_ms: u64) {
        if self.pairs.len() < PAIRS_MAX {
            return;
        }
        self.pairs.retain(|_, pair| !pair.is_forgotten(now_ms));
        if self.pairs.len() < PAIRS_MAX {
            return;
        }
        let quietest = self.pairs.iter().min_by_key(|(_, pair)| pair.last_failure_ms);
        if let Some(key) = quietest.map(|(key, _)| key.clone()) {
            self.pairs.remove(&key);
        }
    }
}

impl Pair {
    /// The wait until this answer's turn, if there is one soon enough. An attempt without a turn does not push
    /// back those after it, or a flood would keep the pair shut long after it has ended.
    fn take_turn(&mut self, now_ms: u64) -> Option<u64> {
        let turn = self.answered_ms.max(now_ms).saturating_add(self.delay_ms());
        let wait = turn.saturating_sub(now_ms);
        if wait > DELAY_MAX_MS {
            return None;
        }
        self.answered_ms = turn;
        Some(wait)
    }

    fn is_forgotten(self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.last_failure_ms) >= FORGET_MS
    }

    fn delay_ms(self) -> u64 {
        match self.failures.checked_sub(FREE_FAILURES + 1) {
            None => 0,
            Some(doublings) => (DELAY_FIRST_MS << doublings.min(16)).min(DELAY_MAX_MS),
        }
    }
}

/// One customer's IPv6 network has 2^64 addresses or more, so its addresses count as one.
fn key(peer: IpAddr, user: &str) -> (IpAddr, Box<str>) {
    let network = match peer.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        address @ IpAddr::V4(_) => address,
    };
    (network, user.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn peer(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn delays_double_after_a_few_failures_up_to_the_limit() {
        let mut throttle = Throttle::default();
        let (mut now, mut delays) = (0, Vec::new());
        for _ in 0..11 {
            let delay = throttle.failed(PEER, "ann", now);
            delays.push(delay);
            now += delay;
        }
        assert_eq!(delays, [0, 0, 0, 250, 500, 1000, 2000, 4000, 8000, 8000, 8000]);
        // The last failure was 8 seconds before now.
        assert_eq!(throttle.clone().succeeded(PEER, "ann", now + FORGET_MS - DELAY_MAX_MS - 1), Some(8000));
        assert_eq!(throttle.clone().succeeded(PEER, "ann", now + FORGET_MS - DELAY_MAX_MS), Some(0));
        assert_eq!(throttle.failed(PEER, "ann", now + FORGET_MS), 0);
    }

    #[test]
    fn a_user_is_slowed_down_only_where_the_guesses_come_from() {
        let mut throttle = Throttle::default();
        for _ in 0..10 {
            throttle.failed(PEER, "ann", 0);
        }
        assert_eq!(throttle.succeeded(peer("192.0.2.2"), "ann", 0), Some(0));
        assert_eq!(throttle.failed(PEER, "bob", 0), 0);
        // The same peer on a socket of both families, and a neighbour in the same IPv6 network.
        assert_ne!(throttle.failed(peer("::ffff:192.0.2.1"), "ann", 0), 0);
        let delays: Vec<u64> =
            (1..=5).map(|host| throttle.failed(peer(&format!("2001:db8::{host}")), "ann", 0)).collect();
        assert_eq!(delays, [0, 0, 0, 250, 750]);
    }

    #[test]
    fn guesses_at_once_gain_nothing() {
        let mut throttle = Throttle::default();
        let mut turns = Vec::new();
        for _ in 0..1000 {
            turns.push(throttle.failed(PEER, "ann", 0));
        }
        // Apart from those that tell nothing because everything is refused at the limit, each waits longer.
        let told: Vec<u64> = turns.into_iter().filter(|turn| (1..DELAY_MAX_MS).contains(turn)).collect();
        assert_eq!(told, [250, 750, 1750, 3750, 7750]);
        // A right guess in the flood is refused like a wrong one, and succeeds once the flood is answered.
        assert_eq!(throttle.succeeded(PEER, "ann", 0), None);
        assert_eq!(throttle.succeeded(PEER, "ann", 7750), Some(8000));
        assert_eq!(throttle.succeeded(PEER, "ann", 7750), Some(0));
    }

    #[test]
    fn the_table_forgets_the_quietest_pair_and_never_grows_past_its_limit() {
        let mut throttle = Throttle::default();
        for _ in 0..4 {
            throttle.failed(PEER, "ann", 1);
        }
        for number in 0..PAIRS_MAX as u64 {
            throttle.failed(PEER, &number.to_string(), 2 + number);
            assert!(throttle.pairs.len() <= PAIRS_MAX);
        }
        assert_eq!(throttle.failed(PEER, "ann", 5000), 0);
        throttle.failed(PEER, "late", FORGET_MS * 2);
        assert_eq!(throttle.pairs.len(), 1);
    }
}
