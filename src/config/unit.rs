//! Durations and sizes as people write them: `"250ms"`, `"64MiB"`.
//!
//! A unit is always written and a fraction never: `5` could be milliseconds, and `"1.5h"` is
//! `"90m"`.

use std::time::Duration;

const DURATIONS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

const SIZES: [(&str, u64); 9] = [
    ("B", 1),
    ("KB", 1_000),
    ("KiB", 1 << 10),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
    ("TB", 1_000_000_000_000),
    ("TiB", 1 << 40),
];

/// Reads `250ms`, `5s`, `2m`, `12h` or `7d`. `None` when malformed or past `u64` milliseconds.
pub fn parse_duration(text: &str) -> Option<Duration> {
    parse(text, &DURATIONS).map(Duration::from_millis)
}

/// Reads `256KiB`, `64MiB` or `10GB`, in bytes. `None` when malformed or past `u64`.
pub fn parse_size(text: &str) -> Option<u64> {
    parse(text, &SIZES)
}

/// The shortest text that [`parse_duration`] reads back; parts of a millisecond are dropped.
pub fn format_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 { "0s".to_owned() } else { format(millis, &DURATIONS) }
}

/// The shortest text that [`parse_size`] reads back.
pub fn format_size(bytes: u64) -> String {
    format(bytes, &SIZES)
}

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// The unit that divides without rest and leaves the smallest number: `10GB`, not `9765625KiB`.
fn format(amount: u64, units: &[(&str, u64)]) -> String {
    let (name, factor) = units
        .iter()
        .filter(|(_, factor)| *factor <= amount.max(1) && amount.is_multiple_of(*factor))
        .max_by_key(|(_, factor)| *factor)
        .expect("the smallest unit divides everything");
    format!("{}{name}", amount / factor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_every_unit() {
        assert_eq!(parse_duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse_duration("2m"), Some(Duration::from_secs(120)));
        assert_eq!(parse_duration("7d"), Some(Duration::from_secs(604_800)));
        assert_eq!(parse_size("256KiB"), Some(262_144));
        assert_eq!(parse_size("10GB"), Some(10_000_000_000));
    }

    #[test]
    fn refuses_what_could_mean_two_things() {
        for text in ["", "5", "ms", "1.5h", "5 s", "-1s", "+1s", "5S", "1h30m", "99999999999999d"] {
            assert_eq!(parse_duration(text), None, "{text:?}");
        }
        for text in ["", "5", "5mb", "5M", "5 MiB", "1.5GB", "99999999999TiB"] {
            assert_eq!(parse_size(text), None, "{text:?}");
        }
    }

    #[test]
    fn prints_the_unit_that_a_person_would_choose() {
        assert_eq!(format_duration(Duration::from_secs(300)), "5m");
        assert_eq!(format_duration(Duration::from_millis(1_500)), "1500ms");
        assert_eq!(format_duration(Duration::ZERO), "0s");
        assert_eq!(format_size(64 << 20), "64MiB");
        assert_eq!(format_size(10_000_000_000), "10GB");
        assert_eq!(format_size(0), "0B");
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(amount: u64) {
            let duration = Duration::from_millis(amount);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Some(duration));
            prop_assert_eq!(parse_size(&format_size(amount)), Some(amount));
        }

        #[test]
        fn any_text_is_read_or_refused(text: String) {
            let _ = (parse_duration(&text), parse_size(&text));
        }
    }
}
