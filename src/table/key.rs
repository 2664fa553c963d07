//! A row's primary key.

use std::fmt;

/// The values of a primary key in the key's order, each in PostgreSQL's text form.
///
/// The order is that of the texts: any total order that all writers share keeps them from locking
/// the same rows in opposite directions. `Debug` shows a hash, never the values.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Parts);

/// Nearly every key has one column: that case costs one allocation.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Parts {
    One(Box<str>),
    Many(Box<[Box<str>]>),
}

impl Key {
    pub fn one(part: impl Into<Box<str>>) -> Self {
        Self(Parts::One(part.into()))
    }

    /// # Panics
    ///
    /// Without parts: a table without a key is refused at start.
    pub fn new(mut parts: Vec<Box<str>>) -> Self {
        assert!(!parts.is_empty(), "a key has at least one column");
        match parts.len() {
            1 => Self(Parts::One(parts.remove(0))),
            _ => Self(Parts::Many(parts.into())),
        }
    }

    /// The value of one key column.
    pub fn part(&self, index: usize) -> &str {
        match &self.0 {
            Parts::One(part) => {
                assert_eq!(index, 0, "a key of one column has one part");
                part
            }
            Parts::Many(parts) => &parts[index],
        }
    }

    pub fn parts(&self) -> usize {
        match &self.0 {
            Parts::One(_) => 1,
            Parts::Many(parts) => parts.len(),
        }
    }

    /// Bytes of text in all parts.
    pub fn bytes(&self) -> usize {
        (0..self.parts()).map(|index| self.part(index).len()).sum()
    }

    /// A hash that stays the same over releases, machines and time: FNV-1a with a final mix.
    ///
    /// Lanes and slices own keys by it, and a dead letter names its row by it, so it must never
    /// follow the version of a hashing crate.
    pub fn stable_hash(&self) -> u64 {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let mut eat = |byte: u8| hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        for index in 0..self.parts() {
            self.part(index).bytes().for_each(&mut eat);
            eat(0xff); // no UTF-8 text holds this byte: ("a", "bc") and ("ab", "c") differ
        }
        // FNV leaves the high bits of short keys poor; the finaliser of MurmurHash3 spreads them.
        hash ^= hash >> 33;
        hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash ^ hash >> 33
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key(#{:016x})", self.stable_hash())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_one_of_every_earlier_release() {
        assert_eq!(Key::one("42").stable_hash(), Key::new(vec!["42".into()]).stable_hash());
        assert_eq!(Key::one("42").stable_hash(), 0xb23ca48541e73a3a);
        assert_eq!(Key::new(vec!["a".into(), "bc".into()]).stable_hash(), 0x4fdf27ef319e86ae);
        assert_eq!(Key::new(vec!["ab".into(), "c".into()]).stable_hash(), 0x2d167758ff7c1e89);
    }

    #[test]
    fn eight_slices_share_sequential_keys_evenly() {
        let mut slices = [0_u32; 8];
        for id in 0..8_000 {
            slices[(Key::one(id.to_string()).stable_hash() % 8) as usize] += 1;
        }
        assert!(slices.iter().all(|count| (900..1_100).contains(count)), "{slices:?}");
    }

    #[test]
    fn debug_shows_no_value() {
        assert!(!format!("{:?}", Key::one("ada@example.org")).contains("ada"));
    }
}
