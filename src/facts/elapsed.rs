//! How times are written for people.

use std::fmt;
use std::time::Duration;

/// A time in the unit that suits it: `830 ns`, `12.3 us`, `12.3 ms`, `4.2 s`, `3 min 12 s`, `5 h 2 min`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Elapsed(pub(crate) Duration);

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (nanos, seconds) = (self.0.as_nanos(), self.0.as_secs());
        let (unit, name) = match nanos {
            0..1_000 => return f.pad(&format!("{nanos} ns")),
            1_000..1_000_000 => (1_000, "us"),
            1_000_000..1_000_000_000 => (1_000_000, "ms"),
            1_000_000_000..60_000_000_000 => (1_000_000_000, "s"),
            _ if seconds < 3600 => return f.pad(&format!("{} min {} s", seconds / 60, seconds % 60)),
            _ => return f.pad(&format!("{} h {} min", seconds / 3600, seconds / 60 % 60)),
        };
        // The tenths are cut off, not rounded: 59.96 s must not become "60.0 s".
        f.pad(&format!("{}.{} {name}", nanos / unit, nanos % unit * 10 / unit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_in_the_unit_that_suits_them() {
        let written = |nanos: u64| Elapsed(Duration::from_nanos(nanos)).to_string();
        assert_eq!(written(0), "0 ns");
        assert_eq!(written(999), "999 ns");
        assert_eq!(written(1_000), "1.0 us");
        assert_eq!(written(12_345_678), "12.3 ms");
        assert_eq!(written(999_999_999), "999.9 ms");
        assert_eq!(written(59_960_000_000), "59.9 s");
        assert_eq!(written(192_000_000_000), "3 min 12 s");
        assert_eq!(written(3_599_900_000_000), "59 min 59 s");
        assert_eq!(written(3_600_000_000_000), "1 h 0 min");
        assert_eq!(written(18_120_000_000_000), "5 h 2 min");
        assert_eq!(format!("{:>8}|", Elapsed(Duration::from_millis(1))), "  1.0 ms|");
    }
}
