//! What a storage server keeps to refuse accesses of those who were overtaken.
//!
//! # Promise
//! An access is refused if a conflicting one with a higher token was admitted before, of any of its bytes. So whoever
//! was stopped past its lease, and goes on, does no harm once its successor has been there.
//!
//! # Room
//! At most as many intervals as it was made for. If there would be more, neighbours are taken together, and have the
//! higher tokens of the two from then on: some are refused then who need not be. They ask for their range anew, and get
//! a higher token.

use spanlock::{ByteRange, Mode};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeBounds;

/// Tokens by mode, in the order of [`Mode`]'s variants.
type Tokens = [u64; 3];

const MODES: [Mode; 3] = [Mode::Add, Mode::Block, Mode::Exclusive];

/// The highest tokens that were seen, range by range: see the example `volume`.
///
/// It knows no owners. An owner with several grants, one nested in another, uses the highest token that it has had for
/// the range.
///
/// ```
/// use spanlock_etcd::{Mode, TokenMap};
///
/// let mut seen = TokenMap::new(1000);
/// assert!(seen.admit(0..4096, Mode::Exclusive, 7).is_ok());
/// assert!(seen.admit(4096..8192, Mode::Exclusive, 5).is_ok()); // elsewhere
/// assert!(seen.admit(0..10, Mode::Block, 9).is_ok());
/// assert!(seen.admit(5..15, Mode::Block, 8).is_ok()); // they go together
/// assert_eq!(seen.admit(0..1, Mode::Exclusive, 7).unwrap_err().seen(), 9); // it was overtaken
/// ```
#[derive(Clone, Debug)]
pub struct TokenMap {
    most: usize,
    /// Disjoint intervals, by their first bytes.
    spans: BTreeMap<u64, (u64, Tokens)>,
}

/// Somebody was overtaken: an access with a higher token was admitted before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overtaken {
    token: u64,
    seen: u64,
}

impl Overtaken {
    /// The higher token.
    pub fn seen(&self) -> u64 {
        self.seen
    }
}

impl fmt::Display for Overtaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "token {} is refused: a conflicting access had token {}", self.token, self.seen)
    }
}

impl std::error::Error for Overtaken {}

impl TokenMap {
    /// An empty one, for at most `most` intervals.
    ///
    /// # Panics
    /// If that is 0.
    pub fn new(most: usize) -> TokenMap {
        assert!(most > 0, "a map of no intervals can admit nothing");
        TokenMap { most, spans: BTreeMap::new() }
    }

    /// Admits an access and remembers it, or refuses it.
    ///
    /// # Errors
    /// [`Overtaken`], if a conflicting access with a higher token was admitted before.
    ///
    /// # Panics
    /// If the range is inverted.
    pub fn admit(&mut self, range: impl RangeBounds<u64>, mode: Mode, token: u64) -> Result<(), Overtaken> {
        let range = ByteRange::new((range.start_bound().cloned(), range.end_bound().cloned()));
        let (Some(first), Some(last)) = (range.start(), range.last()) else { return Ok(()) };
        let conflicting = |tokens: &Tokens| {
            MODES.iter().zip(tokens).filter(|(other, _)| !mode.goes_with(**other)).map(|(_, seen)| *seen).max()
        };
        let touched = self.cut(first, last);
        let seen = touched.iter().filter_map(|(_, _, tokens)| conflicting(tokens)).max().unwrap_or(0);
        if seen > token {
            self.join();
            return Err(Overtaken { token, seen });
        }
        // What lies between the intervals is seen for the first time.
        let mut next = Some(first);
        for (from, to, tokens) in touched {
            if let Some(at) = next.filter(|&at| at < from) {
                self.spans.insert(at, (from - 1, with([0; 3], mode, token)));
            }
            self.spans.insert(from, (to, with(tokens, mode, token)));
            next = to.checked_add(1);
        }
        if let Some(at) = next.filter(|&at| at <= last) {
            self.spans.insert(at, (last, with([0; 3], mode, token)));
        }
        self.join();
        Ok(())
    }

    /// How many intervals it has.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether nothing was admitted yet.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Cuts the intervals at both ends of the range, and lists those within.
    fn cut(&mut self, first: u64, last: u64) -> Vec<(u64, u64, Tokens)> {
        for at in [Some(first), last.checked_add(1)].into_iter().flatten() {
            if let Some((&from, &(to, tokens))) = self.spans.range(..at).next_back()
                && to >= at
            {
                self.spans.insert(from, (at - 1, tokens));
                self.spans.insert(at, (to, tokens));
            }
        }
        self.spans.range(first..=last).map(|(&from, &(to, tokens))| (from, to, tokens)).collect()
    }

    /// Takes neighbours together: those that say the same, and while there are too many, those that differ least.
    fn join(&mut self) {
        self.join_if(|(from, to), (other, _)| from.1 == other.1 && to.checked_add(1) == Some(other.0));
        let mut allowed = 1;
        while self.spans.len() > self.most {
            self.join_if(|(from, _), (other, _)| from.1.iter().zip(&other.1).all(|(a, b)| a.abs_diff(*b) <= allowed));
            allowed = allowed.saturating_mul(2);
        }
    }

    /// Takes each interval together with the one before, where that is allowed: by their first bytes and tokens, and
    /// their last bytes.
    fn join_if(&mut self, is_allowed: impl Fn(((u64, Tokens), u64), ((u64, Tokens), u64)) -> bool) {
        let mut joined: Vec<(u64, u64, Tokens)> = Vec::new();
        for (&from, &(to, tokens)) in &self.spans {
            match joined.last_mut() {
                Some(before) if is_allowed(((before.0, before.2), before.1), ((from, tokens), to)) => {
                    before.1 = to;
                    before.2 = std::array::from_fn(|at| before.2[at].max(tokens[at]));
                }
                _ => joined.push((from, to, tokens)),
            }
        }
        self.spans = joined.into_iter().map(|(from, to, tokens)| (from, (to, tokens))).collect();
    }
}

fn with(mut tokens: Tokens, mode: Mode, token: u64) -> Tokens {
    for (other, seen) in MODES.iter().zip(&mut tokens) {
        if *other == mode {
            *seen = token.max(*seen);
        }
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a map without bounds would be: each byte with its tokens.
    struct Bytes([Tokens; 40]);

    impl Bytes {
        fn admit(&mut self, first: usize, last: usize, mode: Mode, token: u64) -> bool {
            let clash = |other: usize| !MODES[other].goes_with(mode);
            let seen =
                self.0[first..=last].iter().flat_map(|tokens| (0..3).filter(|&at| clash(at)).map(|at| tokens[at]));
            if seen.max().unwrap() > token {
                return false;
            }
            self.0[first..=last].iter_mut().for_each(|tokens| *tokens = with(*tokens, mode, token));
            true
        }
    }

    #[test]
    fn it_is_as_if_each_byte_had_its_tokens() {
        let mut random = fastrand::Rng::with_seed(3);
        for _ in 0..300 {
            // At both ends of the space.
            let base = if random.bool() { 0 } else { u64::MAX - 39 };
            let (mut map, mut bytes) = (TokenMap::new(1000), Bytes([[0; 3]; 40]));
            for round in 0..100 {
                let (a, b) = (random.usize(0..40), random.usize(0..40));
                let (first, last, mode) = (a.min(b), a.max(b), MODES[random.usize(0..3)]);
                let token = (round + random.u64(0..20)).saturating_sub(random.u64(0..20));
                let admitted = map.admit(base + first as u64..=base + last as u64, mode, token).is_ok();
                assert_eq!(admitted, bytes.admit(first, last, mode, token));
                assert!(map.len() <= 40);
            }
        }
    }

    #[test]
    fn a_small_one_refuses_more_and_never_less() {
        let mut random = fastrand::Rng::with_seed(4);
        let mut refused_needlessly = 0;
        for _ in 0..300 {
            let (mut map, mut bytes) = (TokenMap::new(4), Bytes([[0; 3]; 40]));
            for round in 0..100 {
                let (a, b) = (random.usize(0..40), random.usize(0..40));
                let (first, last, mode) = (a.min(b), a.max(b), MODES[random.usize(0..3)]);
                let token = (round + random.u64(0..20)).saturating_sub(random.u64(0..20));
                let would = {
                    let mut copy = Bytes(bytes.0);
                    copy.admit(first, last, mode, token)
                };
                let admitted = map.admit(first as u64..=last as u64, mode, token).is_ok();
                assert!(would || !admitted, "admitted though it was overtaken");
                refused_needlessly += usize::from(would && !admitted);
                if admitted {
                    bytes.admit(first, last, mode, token);
                }
                assert!(map.len() <= 4);
            }
        }
        assert!((1..15_000).contains(&refused_needlessly), "{refused_needlessly}");
    }

    #[test]
    fn an_empty_range_is_nothing() {
        let mut map = TokenMap::new(1);
        assert!(map.admit(5..5, Mode::Add, 1).is_ok() && map.is_empty());
        assert!(map.admit(.., Mode::Add, 1).is_ok() && map.len() == 1);
    }
}
