//! A strict JSON scanner that hands out places instead of values.
//!
//! It accepts exactly what RFC 8259 does, up to a depth, and checks also what nobody asks for: a
//! record that is broken anywhere is broken. It allocates nothing and does not recurse.
//!
//! Two ways not taken, both in `benches/decode.rs`. serde_json with borrowing structs costs as much,
//! but names its fields at compile time, judges a column before the table is known, and lets invalid
//! UTF-8 pass in what it ignores; in the tests it is the yardstick. simd-json works in place, so a
//! record is copied first, and then all of it is indexed and unescaped: for a schema that was not
//! seen before, its tape alone takes nearly what the finished event takes here.

use std::borrow::Cow;

/// Nesting that no record of Debezium comes near; serde_json stops at the same.
pub(super) const MAX_DEPTH: u32 = 128;

/// What a JSON value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Kind {
    #[default]
    Null,
    True,
    False,
    /// A number with neither fraction nor exponent.
    Integer,
    Fraction,
    /// A string without a backslash: its bytes are its text.
    Text,
    EscapedText,
    Object,
    Array,
}

impl Kind {
    /// The kind in the words of a message.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::True | Self::False => "a boolean",
            Self::Integer => "an integer",
            Self::Fraction => "a number that is no integer",
            Self::Text | Self::EscapedText => "a string",
            Self::Object => "an object",
            Self::Array => "an array",
        }
    }
}

/// A value's kind and the bytes of its document that it takes; a string without its quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Token {
    /// The bytes of the value as they stand; `document` is the one that was scanned.
    pub(super) fn raw<'a>(&self, document: &'a str) -> &'a str {
        &document[self.start..self.end]
    }

    /// The text of a string; `None` for another kind, and for half a surrogate pair.
    pub(super) fn string<'a>(&self, document: &'a str) -> Option<Cow<'a, str>> {
        match self.kind {
            Kind::Text => Some(Cow::Borrowed(self.raw(document))),
            Kind::EscapedText => unescape(self.raw(document)).map(Cow::Owned),
            Kind::Null
            | Kind::True
            | Kind::False
            | Kind::Integer
            | Kind::Fraction
            | Kind::Object
            | Kind::Array => None,
        }
    }
}

/// Where a document stops being JSON: a byte offset from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JsonError {
    Malformed { at: usize },
    TooDeep { at: usize },
}

/// A place in a document.
#[derive(Debug)]
pub(super) struct Scanner<'a> {
    document: &'a str,
    at: usize,
    depth: u32,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(document: &'a str) -> Self {
        Self { document, at: 0, depth: 0 }
    }

    /// For a document that was cut out of an object, one level deep.
    pub(super) fn in_object(document: &'a str) -> Self {
        Self { document, at: 0, depth: 1 }
    }

    /// A scanner that stands before an object of a document that was scanned already.
    pub(super) fn at_object(document: &'a str, token: Token) -> Self {
        Self { document, at: token.start, depth: 0 }
    }

    /// The next byte that is not white space.
    pub(super) fn peek(&mut self) -> Option<u8> {
        loop {
            let byte = *self.bytes().get(self.at)?;
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    /// Checks that nothing but white space follows.
    pub(super) fn end(&mut self) -> Result<(), JsonError> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.malformed()),
        }
    }

    /// Takes one value of any kind.
    pub(super) fn value(&mut self) -> Result<Token, JsonError> {
        match self.peek() {
            Some(b'"') => self.string(),
            Some(b'{' | b'[') => self.container(),
            Some(byte) => self.scalar(byte),
            None => Err(self.malformed()),
        }
    }

    /// Takes an object, or whatever else stands here. `member` gets the name and stands before the
    /// member's value, of which it takes exactly one.
    pub(super) fn object<E: From<JsonError>>(
        &mut self,
        mut member: impl FnMut(&mut Self, Cow<'a, str>) -> Result<(), E>,
    ) -> Result<Token, E> {
        if self.peek() != Some(b'{') {
            return Ok(self.value()?);
        }
        let start = self.at;
        self.open()?;
        if self.peek() == Some(b'}') {
            self.at += 1;
        } else {
            loop {
                let name = self.name()?;
                // Half a surrogate pair, which is no name of anything.
                let at = name.start;
                let name = name.string(self.document).ok_or(JsonError::Malformed { at })?;
                member(self, name)?;
                if self.more(true)? {
                    continue;
                }
                break;
            }
        }
        self.depth -= 1;
        Ok(Token { kind: Kind::Object, start, end: self.at })
    }

    fn bytes(&self) -> &'a [u8] {
        self.document.as_bytes()
    }

    fn malformed(&self) -> JsonError {
        JsonError::Malformed { at: self.at }
    }

    /// Steps over the bracket that opens a container.
    fn open(&mut self) -> Result<(), JsonError> {
        if self.depth == MAX_DEPTH {
            return Err(JsonError::TooDeep { at: self.at });
        }
        self.depth += 1;
        self.at += 1;
        Ok(())
    }

    /// Steps over what follows a member or an element: a comma (true) or the closing bracket.
    #[inline]
    fn more(&mut self, object: bool) -> Result<bool, JsonError> {
        let close = if object { b'}' } else { b']' };
        match self.peek() {
            Some(b',') => {
                self.at += 1;
                Ok(true)
            }
            Some(byte) if byte == close => {
                self.at += 1;
                Ok(false)
            }
            _ => Err(self.malformed()),
        }
    }

    /// Takes a member's name and the colon.
    #[inline]
    fn name(&mut self) -> Result<Token, JsonError> {
        if self.peek() != Some(b'"') {
            return Err(self.malformed());
        }
        let name = self.string()?;
        if self.peek() != Some(b':') {
            return Err(self.malformed());
        }
        self.at += 1;
        Ok(name)
    }

    /// Steps over an object or an array. The brackets that are open are bits, so that no input can
    /// exhaust the stack or the heap.
    fn container(&mut self) -> Result<Token, JsonError> {
        let start = self.at;
        let outside = self.depth;
        let kind = if self.bytes()[start] == b'{' { Kind::Object } else { Kind::Array };
        // The lowest bit is the innermost bracket; set for an object.
        let mut brackets = 0_u128;
        'value: loop {
            match self.peek() {
                Some(b'"') => {
                    self.string()?;
                }
                Some(bracket @ (b'{' | b'[')) => {
                    let object = bracket == b'{';
                    self.open()?;
                    brackets = brackets << 1 | u128::from(object);
                    let close = if object { b'}' } else { b']' };
                    if self.peek() != Some(close) {
                        if object {
                            self.name()?;
                        }
                        continue 'value;
                    }
                    self.at += 1;
                    brackets >>= 1;
                    self.depth -= 1;
                }
                Some(byte) => {
                    self.scalar(byte)?;
                }
                None => return Err(self.malformed()),
            }
            while self.depth > outside {
                let object = brackets & 1 == 1;
                if self.more(object)? {
                    if object {
                        self.name()?;
                    }
                    continue 'value;
                }
                brackets >>= 1;
                self.depth -= 1;
            }
            return Ok(Token { kind, start, end: self.at });
        }
    }

    /// Takes a literal or a number that begins with `byte`.
    #[inline]
    fn scalar(&mut self, byte: u8) -> Result<Token, JsonError> {
        match byte {
            b'n' => self.literal("null", Kind::Null),
            b't' => self.literal("true", Kind::True),
            b'f' => self.literal("false", Kind::False),
            b'-' | b'0'..=b'9' => self.number(),
            _ => Err(self.malformed()),
        }
    }

    #[inline]
    fn literal(&mut self, word: &'static str, kind: Kind) -> Result<Token, JsonError> {
        let start = self.at;
        if !self.bytes()[start..].starts_with(word.as_bytes()) {
            return Err(self.malformed());
        }
        self.at += word.len();
        Ok(Token { kind, start, end: self.at })
    }

    fn number(&mut self) -> Result<Token, JsonError> {
        let bytes = self.bytes();
        let start = self.at;
        let mut kind = Kind::Integer;
        if bytes[start] == b'-' {
            self.at += 1;
        }
        match bytes.get(self.at) {
            Some(b'0') => self.at += 1,
            _ => self.digits()?,
        }
        if bytes.get(self.at) == Some(&b'.') {
            kind = Kind::Fraction;
            self.at += 1;
            self.digits()?;
        }
        if matches!(bytes.get(self.at), Some(b'e' | b'E')) {
            kind = Kind::Fraction;
            self.at += 1;
            if matches!(bytes.get(self.at), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(Token { kind, start, end: self.at })
    }

    /// One digit or more.
    #[inline]
    fn digits(&mut self) -> Result<(), JsonError> {
        let rest = &self.bytes()[self.at..];
        let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if count == 0 {
            return Err(self.malformed());
        }
        self.at += count;
        Ok(())
    }

    /// Takes a string; stands before its opening quote.
    #[inline]
    fn string(&mut self) -> Result<Token, JsonError> {
        let bytes = self.bytes();
        self.at += 1;
        let start = self.at;
        let mut kind = Kind::Text;
        loop {
            self.at += plain(&bytes[self.at..]);
            match bytes.get(self.at) {
                Some(b'"') => {
                    let token = Token { kind, start, end: self.at };
                    self.at += 1;
                    return Ok(token);
                }
                Some(b'\\') => {
                    kind = Kind::EscapedText;
                    self.escape()?;
                }
                _ => return Err(self.malformed()),
            }
        }
    }

    /// Steps over an escape.
    fn escape(&mut self) -> Result<(), JsonError> {
        let bytes = self.bytes();
        self.at += 1;
        match bytes.get(self.at) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
            Some(b'u') => {
                self.at += 1;
                for _ in 0..4 {
                    match bytes.get(self.at) {
                        Some(byte) if byte.is_ascii_hexdigit() => self.at += 1,
                        _ => return Err(self.malformed()),
                    }
                }
            }
            _ => return Err(self.malformed()),
        }
        Ok(())
    }
}

/// Bytes before the first quote, backslash or control character.
///
/// Eight at a time: bit tricks that are exact for the lowest byte that matches, which is the one
/// looked for ("Bit Twiddling Hacks", `hasless`).
#[inline]
fn plain(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let less = |word: u64, than: u8| word.wrapping_sub(ONES * u64::from(than)) & !word & HIGH;
    let mut at = 0;
    while let Some(chunk) = bytes[at..].first_chunk::<8>() {
        let word = u64::from_le_bytes(*chunk);
        let found = less(word, 0x20)
            | less(word ^ (ONES * u64::from(b'"')), 1)
            | less(word ^ (ONES * u64::from(b'\\')), 1);
        if found != 0 {
            return at + (found.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    let special = |byte: &u8| matches!(byte, b'"' | b'\\' | ..0x20);
    at + bytes[at..].iter().position(special).unwrap_or(bytes.len() - at)
}

/// The text of a scanned string that has escapes; `None` for half a surrogate pair.
fn unescape(raw: &str) -> Option<String> {
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((before, after)) = rest.split_once('\\') {
        text.push_str(before);
        let escape = after.as_bytes().first()?;
        rest = &after[1..];
        text.push(match escape {
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let unit = unit(&mut rest)?;
                match unit {
                    0xd800..0xdc00 => {
                        rest = rest.strip_prefix("\\u")?;
                        let low = self::unit(&mut rest)?;
                        char::decode_utf16([unit, low]).next()?.ok()?
                    }
                    _ => char::from_u32(u32::from(unit))?,
                }
            }
            other => char::from(*other), // a quote, a slash, a backslash
        });
    }
    text.push_str(rest);
    Some(text)
}

/// Takes four hexadecimal digits.
fn unit(rest: &mut &str) -> Option<u16> {
    let (digits, after) = rest.split_at_checked(4)?;
    *rest = after;
    u16::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::de::IgnoredAny;

    fn scan(document: &str) -> Result<Token, JsonError> {
        let mut scanner = Scanner::new(document);
        let token = scanner.value()?;
        scanner.end().map(|()| token)
    }

    /// What stands between the quotes of a JSON string that has a tail longer than one word.
    #[track_caller]
    fn check_text(json: &str, text: Option<&str>) {
        let token = scan(json).unwrap();
        assert_eq!(token.string(json).as_deref(), text);
    }

    #[test]
    fn takes_every_kind_of_value() {
        let kinds = [
            ("null", Kind::Null),
            (" true ", Kind::True),
            ("false", Kind::False),
            ("-0", Kind::Integer),
            ("9223372036854775807", Kind::Integer),
            ("1.50", Kind::Fraction),
            ("1E+3", Kind::Fraction),
            ("\"\"", Kind::Text),
            ("\"\\u00e9\"", Kind::EscapedText),
            ("[1,[],{}]", Kind::Array),
            ("{\"a\":{\"b\":[]}}", Kind::Object),
        ];
        for (json, kind) in kinds {
            assert_eq!(scan(json).map(|token| token.kind), Ok(kind), "{json}");
        }
    }

    #[test]
    fn refuses_what_is_nearly_json() {
        let broken = "|{|}|[|]|[1,]|{\"a\":1,}|{\"a\"}|{a:1}|{\"a\":}|01|-|+1|1.|.5|1e|1e+|nul|nulls|True|\
                      'a'|\"a|\"\\x\"|\"\\u12g4\"|\"\t\"|1 2|[1 2]|{\"a\":1]|[1}|NaN|Infinity|//|\u{feff}1|\u{a0}1";
        for json in broken.split('|') {
            assert!(scan(json).is_err(), "{json}");
            assert!(serde_json::from_str::<IgnoredAny>(json).is_err(), "{json}");
        }
    }

    #[test]
    fn names_the_byte_at_which_a_document_breaks() {
        assert_eq!(scan("{\"a\":1,]"), Err(JsonError::Malformed { at: 7 }));
        assert_eq!(scan("\"abcdefgh\u{1}\""), Err(JsonError::Malformed { at: 9 }));
    }

    #[test]
    fn undoes_every_escape() {
        check_text(r#""a\"\\\/\b\f\n\r\tz""#, Some("a\"\\/\u{8}\u{c}\n\r\tz"));
        check_text(r#""\u0041\u00e9\ud83d\ude00 tail of it""#, Some("Aé😀 tail of it"));
        check_text(r#""\ud83d""#, None);
        check_text(r#""\ude00\ud83d""#, None);
        check_text(r#""\ud83d\u0041""#, None);
    }

    #[test]
    fn goes_as_deep_as_its_limit_and_no_deeper() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(scan(&nested(128)).is_ok());
        assert_eq!(scan(&nested(129)), Err(JsonError::TooDeep { at: 128 }));
        assert_eq!(scan(&"[".repeat(1_000_000)), Err(JsonError::TooDeep { at: 128 }));
        let objects = "{\"a\":[".repeat(64) + &"]}".repeat(64);
        assert!(scan(&objects).is_ok());
    }

    proptest! {
        #[test]
        fn accepts_exactly_what_serde_json_does(
            json in "[\\[\\]{},:\"\\\\ \n0-9eE+.\\-a-cu/é\u{1}]{0,24}",
        ) {
            prop_assert_eq!(scan(&json).is_ok(), serde_json::from_str::<IgnoredAny>(&json).is_ok());
        }

        #[test]
        fn accepts_exactly_the_numbers_that_serde_json_does(json in "-?[01]{0,3}(\\.?[0-9]{0,2})([eE]?[+-]?[0-9]?)") {
            prop_assert_eq!(scan(&json).is_ok(), serde_json::from_str::<IgnoredAny>(&json).is_ok());
        }

        #[test]
        fn reads_the_strings_that_serde_json_writes(text in any::<String>()) {
            let json = serde_json::to_string(&text).unwrap();
            let token = scan(&json).unwrap();
            prop_assert_eq!(token.string(&json), Some(text.into()));
        }

        #[test]
        fn reads_escaped_strings_as_serde_json_does(inside in "(\\\\(u(d[89a-f]|00)[0-9a-f]{2}|[\"\\\\/bfnrt])|[a-zé]){0,9}") {
            let json = format!("\"{inside}\"");
            let ours = scan(&json).unwrap().string(&json).map(Cow::into_owned);
            prop_assert_eq!(ours, serde_json::from_str::<String>(&json).ok());
        }

        #[test]
        fn finds_the_first_byte_that_is_not_plain(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let expected = bytes.iter().position(|b| *b < 0x20 || *b == b'"' || *b == b'\\');
            prop_assert_eq!(plain(&bytes), expected.unwrap_or(bytes.len()));
        }
    }
}
