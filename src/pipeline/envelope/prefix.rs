//! The schemas that went before, as the bytes that carry them.
//!
//! The JsonConverter writes `{"schema":<S>,"payload":<P>}` with the same S for every record of one
//! table version, and S is four fifths of the record. JSON's grammar is deterministic: after the
//! same bytes a parser is in the same state. So a record that begins with the bytes of one that was
//! read in full, and ends in `}`, needs only its P to be read. Compared is the whole prefix, never a
//! hash of it: that is exact, and no slower (both are bound by memory).

/// How many versions are kept: enough for a table that changes while old records are still read.
const ENTRIES: usize = 4;

/// A longer schema is read each time. A table of a thousand columns has some 200 kB.
const LONGEST: usize = 1 << 20;

/// Prefixes of records up to the payload's first byte, the last used first.
#[derive(Debug, Default)]
pub(super) struct PrefixCache(Vec<Box<[u8]>>);

impl PrefixCache {
    /// The payload of a record that begins as an earlier one did, without the brace that ends the
    /// record; the caller checks that it is one JSON value.
    pub(super) fn payload<'a>(&mut self, record: &'a [u8]) -> Option<&'a [u8]> {
        let body = record.strip_suffix(b"}")?;
        let index = self.0.iter().position(|prefix| body.starts_with(prefix))?;
        self.0[..=index].rotate_right(1);
        Some(&body[self.0[0].len()..])
    }

    /// Keeps the prefix of a record that was read in full, in the place of the one that was used
    /// longest ago.
    pub(super) fn remember(&mut self, prefix: &[u8]) {
        if prefix.len() > LONGEST {
            return;
        }
        self.0.truncate(ENTRIES - 1);
        self.0.insert(0, prefix.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hands_out_the_rest_of_a_record_that_begins_as_one_before() {
        let mut cache = PrefixCache::default();
        assert_eq!(cache.payload(b"{\"schema\":1,\"payload\":2}"), None);
        cache.remember(b"{\"schema\":1,\"payload\":");
        assert_eq!(cache.payload(b"{\"schema\":1,\"payload\":3}"), Some(&b"3"[..]));
        assert_eq!(cache.payload(b"{\"schema\":2,\"payload\":3}"), None);
        assert_eq!(cache.payload(b"{\"schema\":1,\"payload\":3"), None);
        assert_eq!(cache.payload(b"}"), None);
        assert_eq!(cache.payload(b""), None);
    }

    #[test]
    fn drops_the_prefix_that_was_used_longest_ago() {
        let mut cache = PrefixCache::default();
        for prefix in [b"a", b"b", b"c", b"d"] {
            cache.remember(prefix);
        }
        assert!(cache.payload(b"a}").is_some());
        cache.remember(b"e");
        assert!(cache.payload(b"a}").is_some());
        assert!(cache.payload(b"b}").is_none());
    }
}
