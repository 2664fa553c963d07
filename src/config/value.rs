//! One value: from its text to what its kind says it is.
//!
//! A refusal says what was expected and never what was found: the text may come from a variable.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::Code;
use super::keys::Kind;
use super::secret::Secret;
use super::unit;
use crate::pg::ident::Ident;

/// A value that its kind allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Secret(Secret),
    Flag(bool),
    /// A number or a size.
    Whole(u64),
    Time(Duration),
    Ident(Ident),
    Idents(Vec<Ident>),
    Listen(Option<SocketAddr>),
    File(PathBuf),
}

/// Why a text is no value of its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: Code,
    /// Goes on from the key: `is not a duration`.
    pub(super) says: String,
    /// Stands at the caret.
    pub(super) label: String,
}

impl Kind {
    /// What a value of this kind is called.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Version => "a format version",
            Self::Name => "a migration name",
            Self::Text | Self::Property => "a text",
            Self::Flag => "true or false",
            Self::Whole { .. } => "a whole number",
            Self::Time { .. } => "a duration",
            Self::Size { .. } => "a size",
            Self::Word(_) => "one of its choices",
            Self::Ident => "an identifier",
            Self::SlotName => "a slot name",
            Self::Idents => "a list of identifiers",
            Self::Topic => "a topic name",
            Self::HostPorts => "a list of addresses",
            Self::Listen => "an address to listen on",
            Self::HttpUrl => "an HTTP address",
            Self::File => "a path",
            Self::Connection => "a connection string",
        }
    }

    /// The values that it takes, for a person.
    pub fn expected(self) -> String {
        match self {
            Self::Version => "1".to_owned(),
            Self::Name => "1 to 48 of a-z, 0-9, _ and -".to_owned(),
            Self::Text | Self::Property => "a text in quotes, not empty".to_owned(),
            Self::Flag => "true or false, without quotes".to_owned(),
            Self::Whole { min, max } => format!("a whole number, {min} to {max}"),
            Self::Time { min, max } => {
                format!("a number and ms, s, m, h or d in quotes, {}", time_range(min, max))
            }
            Self::Size { min, max } => {
                format!(
                    "a number and KiB, MiB, GiB, KB, MB, GB or B in quotes, {}",
                    size_range(min, max)
                )
            }
            Self::Word(words) => {
                let quoted: Vec<_> = words.iter().map(|word| format!("\"{word}\"")).collect();
                quoted.join(" or ")
            }
            Self::Ident => "a name as the catalog spells it, at most 63 bytes".to_owned(),
            Self::SlotName => "1 to 63 of a-z, 0-9 and _".to_owned(),
            Self::Idents => "names as the catalog spells them, as in [\"id\"]".to_owned(),
            Self::Topic => "1 to 249 of a-z, A-Z, 0-9, ., _ and -".to_owned(),
            Self::HostPorts => "host:port, with commas between several".to_owned(),
            Self::Listen => "\"127.0.0.1:8787\", another loopback address, or \"off\"".to_owned(),
            Self::HttpUrl => "http:// or https://, a host, no user and no password".to_owned(),
            Self::File => "a path in quotes".to_owned(),
            Self::Connection => {
                "postgres://user@host/database or host=… user=… dbname=…".to_owned()
            }
        }
    }

    /// Reads a text, its variables already filled in.
    pub(super) fn parse(self, text: &str) -> Result<Value, Refusal> {
        let text_if = |right: bool| right.then(|| Value::Text(text.to_owned()));
        let value = match self {
            Self::Version | Self::Whole { .. } => text.parse().ok().map(Value::Whole),
            Self::Name => {
                text_if(made_of(text, 48, |c| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-')))
            }
            Self::Topic => text_if(made_of(text, 249, |c| {
                c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-')
            })),
            Self::SlotName => made_of(text, 63, |c| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'_'))
                .then(|| Ident::new(text).ok().map(Value::Ident))
                .flatten(),
            Self::Text => text_if(is_text(text)),
            Self::Property => is_text(text).then(|| Value::Secret(Secret::new(text))),
            Self::Flag => text.parse().ok().map(Value::Flag),
            Self::Time { .. } => unit::parse_duration(text).map(Value::Time),
            Self::Size { .. } => unit::parse_size(text).map(Value::Whole),
            Self::Word(words) => text_if(words.contains(&text)),
            Self::Ident => Ident::new(text).ok().map(Value::Ident),
            Self::Idents => Ident::new(text).ok().map(|one| Value::Idents(vec![one])),
            Self::HostPorts => text_if(text.split(',').all(|one| is_host_port(one.trim()))),
            Self::Listen if text == "off" => Some(Value::Listen(None)),
            Self::Listen => text.parse().ok().map(|address| Value::Listen(Some(address))),
            Self::HttpUrl => text_if(is_http_url(text)),
            Self::File => is_text(text).then(|| Value::File(text.into())),
            Self::Connection => {
                let is_one = text.parse::<tokio_postgres::Config>().is_ok();
                is_one.then(|| Value::Secret(Secret::new(text)))
            }
        };
        let value = value.ok_or_else(|| Refusal {
            code: Code::Malformed,
            says: format!("is not {}", self.noun()),
            label: format!("expected {}", self.expected()),
        })?;
        self.within(value)
    }

    /// Checks the bounds of a value of this kind.
    pub(super) fn within(self, value: Value) -> Result<Value, Refusal> {
        let is_within = match self {
            Self::Version => value.whole() == Some(1),
            Self::Whole { min, max } | Self::Size { min, max } => {
                value.whole().is_some_and(|whole| (min..=max).contains(&whole))
            }
            Self::Time { min, max } => value
                .time()
                .and_then(|time| u64::try_from(time.as_millis()).ok())
                .is_some_and(|millis| (min..=max).contains(&millis)),
            Self::Listen => match value.listen() {
                Some(Some(address)) => address.ip().is_loopback(),
                Some(None) | None => true,
            },
            Self::Name
            | Self::Text
            | Self::Flag
            | Self::Word(_)
            | Self::Ident
            | Self::SlotName
            | Self::Idents
            | Self::Topic
            | Self::HostPorts
            | Self::HttpUrl
            | Self::File
            | Self::Connection
            | Self::Property => true,
        };
        if is_within { Ok(value) } else { Err(self.out_of_range()) }
    }

    /// The refusal of a value outside the bounds.
    pub(super) fn out_of_range(self) -> Refusal {
        let (code, says) = match self {
            Self::Version => (Code::Unsupported, "is not a version that this release reads"),
            Self::Listen => (Code::Insecure, "is not a loopback address"),
            Self::Whole { .. }
            | Self::Time { .. }
            | Self::Size { .. }
            | Self::Name
            | Self::Text
            | Self::Flag
            | Self::Word(_)
            | Self::Ident
            | Self::SlotName
            | Self::Idents
            | Self::Topic
            | Self::HostPorts
            | Self::HttpUrl
            | Self::File
            | Self::Connection
            | Self::Property => (Code::OutOfRange, "is out of range"),
        };
        // No authentication is offered, so nobody else may reach it.
        let label = if self == Self::Listen {
            "whoever reaches it can steer the migration: listen on 127.0.0.1 or [::1]".to_owned()
        } else {
            format!("expected {}", self.expected())
        };
        Refusal { code, says: says.to_owned(), label }
    }
}

impl Value {
    pub(super) fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    pub(super) fn secret(&self) -> Option<&Secret> {
        if let Self::Secret(secret) = self { Some(secret) } else { None }
    }

    pub(super) fn whole(&self) -> Option<u64> {
        if let Self::Whole(whole) = self { Some(*whole) } else { None }
    }

    pub(super) fn time(&self) -> Option<Duration> {
        if let Self::Time(time) = self { Some(*time) } else { None }
    }

    pub(super) fn flag(&self) -> Option<bool> {
        if let Self::Flag(flag) = self { Some(*flag) } else { None }
    }

    pub(super) fn ident(&self) -> Option<&Ident> {
        if let Self::Ident(ident) = self { Some(ident) } else { None }
    }

    pub(super) fn idents(&self) -> Option<&[Ident]> {
        if let Self::Idents(idents) = self { Some(idents) } else { None }
    }

    pub(super) fn listen(&self) -> Option<Option<SocketAddr>> {
        if let Self::Listen(listen) = self { Some(*listen) } else { None }
    }

    /// The path, a relative one resolved against `folder`.
    pub(super) fn file(&self, folder: &Path) -> Option<PathBuf> {
        if let Self::File(path) = self { Some(folder.join(path)) } else { None }
    }
}

/// Whether an address of this name is this machine's own.
pub(super) fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

fn time_range(min: u64, max: u64) -> String {
    let [min, max] = [min, max].map(|ms| unit::format_duration(Duration::from_millis(ms)));
    format!("{min} to {max}")
}

fn size_range(min: u64, max: u64) -> String {
    format!("{} to {}", unit::format_size(min), unit::format_size(max))
}

fn is_text(text: &str) -> bool {
    !text.is_empty() && !text.contains('\0')
}

fn made_of(text: &str, longest: usize, allowed: impl Fn(u8) -> bool) -> bool {
    (1..=longest).contains(&text.len()) && text.bytes().all(allowed)
}

fn is_host_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let host_is_one = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => is_host(host),
    };
    host_is_one
        && port.bytes().all(|c| c.is_ascii_digit())
        && port.parse().is_ok_and(|n: u16| n > 0)
}

fn is_host(host: &str) -> bool {
    made_of(host, 253, |c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'_'))
}

fn is_http_url(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")) else {
        return false;
    };
    let authority = rest.split(['/', '?', '#']).next().expect("a split has a first part");
    is_host(authority) || is_host_port(authority)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys::{KEYS, Presence};

    #[track_caller]
    fn takes(kind: Kind, texts: &[&str]) {
        for text in texts {
            assert!(kind.parse(text).is_ok(), "{text:?} was refused");
        }
    }

    #[track_caller]
    fn refuses(kind: Kind, code: Code, texts: &[&str]) {
        for text in texts {
            assert_eq!(kind.parse(text).map_err(|refusal| refusal.code), Err(code), "{text:?}");
        }
    }

    #[test]
    fn addresses_have_a_host_and_a_port() {
        takes(Kind::HostPorts, &["localhost:9092", "a.b-c:1,d:65535", "a:1, b:2", "[::1]:9092"]);
        refuses(
            Kind::HostPorts,
            Code::Malformed,
            &["", "localhost", "a:0", "a:65536", "a:1,", ":1", "a:+1", "::1:9092", "http://a:1"],
        );
    }

    #[test]
    fn http_listens_on_this_machine_only() {
        takes(Kind::Listen, &["off", "127.0.0.1:8787", "127.9.9.9:1", "[::1]:80"]);
        refuses(Kind::Listen, Code::Insecure, &["0.0.0.0:8787", "[::]:8787", "10.0.0.1:80"]);
        refuses(Kind::Listen, Code::Malformed, &["localhost", "on", "127.0.0.1", "OFF"]);
    }

    #[test]
    fn http_addresses_hold_no_credentials() {
        takes(Kind::HttpUrl, &["http://connect:8083", "https://a/b?c", "http://[::1]:8083/"]);
        refuses(
            Kind::HttpUrl,
            Code::Malformed,
            &["connect:8083", "http://", "http://u:p@a", "ftp://a"],
        );
    }

    #[test]
    fn names_stay_within_what_the_databases_take() {
        takes(Kind::Name, &["a", "users-name_split2"]);
        refuses(Kind::Name, Code::Malformed, &["", "Users", "a b", "ä", &"a".repeat(49)]);
        takes(Kind::SlotName, &["crossfade_users"]);
        refuses(Kind::SlotName, Code::Malformed, &["crossfade-users", "Slot", &"a".repeat(64)]);
    }

    #[test]
    fn a_number_outside_its_bounds_is_told_apart_from_no_number() {
        let kind = Kind::Whole { min: 1, max: 32 };
        takes(kind, &["1", "32"]);
        refuses(kind, Code::OutOfRange, &["0", "33"]);
        refuses(kind, Code::Malformed, &["", "two", "-1", "1.5", "99999999999999999999"]);
    }

    #[test]
    fn every_default_is_a_value_of_its_key() {
        for key in KEYS {
            if let Presence::Default(default) = key.presence {
                assert!(key.kind.parse(default.trim_matches('"')).is_ok(), "{}", key.path);
            }
        }
    }
}
