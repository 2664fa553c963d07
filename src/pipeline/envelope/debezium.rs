//! Change events as Debezium's PostgreSQL connector writes them through the JsonConverter.
//!
//! One pass over the record notes *where* the few members stand that a migration needs; what they
//! say is read afterwards, once the operation and the table are known (`source` and `op` come after
//! the row). So a record of another table is never judged by our columns, and nothing is copied but
//! what ends up in the event. The rest is checked to be JSON and skipped.
//!
//! What is believed, and why:
//!
//! * **Values come from `after` alone.** `before` holds fillers in NOT NULL columns (`""`, `0`, 1970)
//!   unless the replica identity is FULL; only the key of a delete is taken from it. (That is a
//!   filler too where the identity is an index without the key: to be refused at start.)
//! * **Absent is unknown**, not NULL: Debezium leaves out columns whose type or value it could not
//!   convert. A NULL where the catalog allows none is unknown as well.
//! * **A nullable column with a default is unknown whenever it has a value:** the JsonConverter writes
//!   the default in place of NULL (`replace.null.with.default`, on by default), and nothing in the
//!   record tells one from the other.
//! * **The unavailable-value placeholder is unknown** in every operation; after a change of the key it
//!   also comes with `c`.
//! * **The table is `source.schema` and `source.table`.** A topic's name is sanitised and may be routed.
//!   The leaves of a partitioned table count as other tables, unless the publication has
//!   `publish_via_partition_root`.
//!
//! Source: Debezium PostgreSQL connector, "Change events"; Kafka Connect, `JsonConverter`.

use crate::pg::ident::Ident;
use crate::pg::lsn::Lsn;
use crate::pipeline::change::{ChangeEvent, Decoded, Op, Origin, RawChange};
use crate::pipeline::envelope::error::DecodeError;
use crate::pipeline::envelope::json::{Kind, Scanner, Token};
use crate::pipeline::envelope::prefix::PrefixCache;
use crate::pipeline::envelope::types::{self, Mismatch, Wire};
use crate::pipeline::position::DatabaseMicros;
use crate::table::{Column, Key, Projection, TypeKind, Value};

/// Decodes the records of one table. Holds scratch space and the schemas seen; one a partition or
/// one for all makes no difference to what comes out.
#[derive(Debug)]
pub struct DebeziumDecoder {
    plan: Plan,
    /// One a field of the plan: where the image that was read last has it.
    found: Vec<Option<Token>>,
    prefixes: PrefixCache,
}

/// What to look for.
#[derive(Debug)]
struct Plan {
    schema: Ident,
    table: Ident,
    /// The columns of the key and the projection, each once.
    fields: Vec<Field>,
    /// Indexes into `fields`, in the key's order.
    key: Vec<usize>,
    /// Indexes into `fields`, in the projection's order.
    values: Vec<usize>,
    unavailable: Box<str>,
}

#[derive(Debug)]
struct Field {
    name: Ident,
    kind: TypeKind,
    not_null: bool,
    /// A value may be the default in the place of NULL.
    defaulted: bool,
}

/// Where the members of an envelope stand.
#[derive(Debug, Default)]
struct Envelope {
    /// The whole of it.
    place: Token,
    op: Option<Token>,
    before: Option<Token>,
    after: Option<Token>,
    source: Option<Token>,
    block: SourceBlock,
    schema: Option<Token>,
    payload: Option<Token>,
    /// All members, known or not.
    members: usize,
}

/// Where the members of a `source` block stand.
#[derive(Debug, Default)]
struct SourceBlock {
    schema: Option<Token>,
    table: Option<Token>,
    snapshot: Option<Token>,
    xid: Option<Token>,
    lsn: Option<Token>,
    micros: Option<Token>,
    millis: Option<Token>,
}

impl DebeziumDecoder {
    /// `unavailable_value` is the connector's `unavailable.value.placeholder`, with its `hex:` form.
    pub fn new(projection: &Projection, unavailable_value: &str) -> Self {
        let plan = Plan::new(projection, unavailable_value);
        Self { found: vec![None; plan.fields.len()], plan, prefixes: PrefixCache::default() }
    }

    /// Decodes one record; what comes out depends on the record alone, not on those before it.
    ///
    /// Takes the bare payload and the schema-wrapped form (`{"schema":…,"payload":…}`), told apart
    /// record by record, since a topic holds both after a change of the converter.
    ///
    /// A delete's tombstone is [`Decoded::Progress`] in all its three forms (no value, `null`, and a
    /// null payload): the `d` event before it said the same. So are truncates and messages.
    ///
    /// # Errors
    ///
    /// When the record is neither a change of a known operation nor anything that is known to carry
    /// none, or when the event lacks what it must have. Never panics, whatever the input.
    pub fn decode(&mut self, raw: &RawChange<'_>) -> Result<Decoded, DecodeError> {
        let Some(value) = raw.value else { return Ok(Decoded::Progress) };
        if let Some(payload) = self.prefixes.payload(value)
            && let Ok(document) = std::str::from_utf8(payload)
            && let Ok(Some(envelope)) = self.whole(Scanner::in_object(document))
        {
            return self.event(document, &envelope, raw.key);
        }
        // Also for a record that broke above: here come the offsets that an error names.
        self.decode_in_full(value, raw.key)
    }

    fn decode_in_full(&mut self, value: &[u8], key: Option<&[u8]>) -> Result<Decoded, DecodeError> {
        let document = std::str::from_utf8(value)
            .map_err(|error| DecodeError::NotUtf8 { offset: error.valid_up_to() })?;
        let Some(outer) = self.whole(Scanner::new(document))? else {
            return Ok(Decoded::Progress);
        };
        let Some(payload) = wrapped(outer.members, outer.schema, outer.payload) else {
            return self.event(document, &outer, key);
        };
        if !is_object(payload)? {
            return Ok(Decoded::Progress);
        }
        let inner = self.envelope(&mut Scanner::at_object(document, payload))?;
        let decoded = self.event(document, &inner, key)?;
        if let Decoded::Change(_) = decoded
            && payload.end + 1 == value.len()
        {
            self.prefixes.remember(&value[..payload.start]);
        }
        Ok(decoded)
    }

    /// Reads a document that is one envelope, or null, and nothing else.
    fn whole(&mut self, mut scanner: Scanner<'_>) -> Result<Option<Envelope>, DecodeError> {
        let envelope = self.envelope(&mut scanner)?;
        scanner.end()?;
        Ok(is_object(envelope.place)?.then_some(envelope))
    }

    /// Reads an envelope, and where the columns stand in its `after`.
    fn envelope(&mut self, scanner: &mut Scanner<'_>) -> Result<Envelope, DecodeError> {
        let Self { plan, found, .. } = self;
        found.fill(None);
        let mut envelope = Envelope::default();
        envelope.place = scanner.object(|scanner, name| {
            envelope.members += 1;
            match &*name {
                "before" => once(&mut envelope.before, scanner.value()?),
                "after" => once(&mut envelope.after, plan.image(scanner, found)?),
                "source" => once(&mut envelope.source, envelope.block.read(scanner)?),
                "op" => once(&mut envelope.op, scanner.value()?),
                "schema" => once(&mut envelope.schema, scanner.value()?),
                "payload" => once(&mut envelope.payload, scanner.value()?),
                _ => scanner.value().map(|_| ()).map_err(DecodeError::from),
            }
        })?;
        Ok(envelope)
    }

    /// What an envelope says, `found` being what its `after` has.
    fn event(
        &mut self,
        document: &str,
        envelope: &Envelope,
        message_key: Option<&[u8]>,
    ) -> Result<Decoded, DecodeError> {
        let Some(op) = envelope.op else {
            return match side_record(document, envelope.place)? {
                true => Ok(Decoded::Progress),
                false => Err(DecodeError::NotAnEvent),
            };
        };
        let (op, letter) = match op.string(document).as_deref() {
            Some("c") => (Op::Create, 'c'),
            Some("u") => (Op::Update, 'u'),
            Some("d") => (Op::Delete, 'd'),
            Some("r") => (Op::Read, 'r'),
            Some("t" | "m") => return Ok(Decoded::Progress),
            other => {
                let letter = other.filter(|op| op.len() == 1).and_then(|op| op.chars().next());
                let op = letter.filter(char::is_ascii_alphabetic).unwrap_or('?');
                return Err(DecodeError::UnknownOp { op });
            }
        };
        if !self.plan.names_table(document, &envelope.block)? {
            return Ok(Decoded::Progress);
        }
        let image = |token: Option<Token>| token.filter(|token| token.kind == Kind::Object);
        let values = match op {
            Op::Create | Op::Update | Op::Read => {
                image(envelope.after).ok_or(DecodeError::MissingImage { op: letter })?;
                self.plan.values(document, &self.found)?
            }
            Op::Delete => {
                self.found.fill(None);
                match image(envelope.before) {
                    Some(before) => {
                        self.plan
                            .image(&mut Scanner::at_object(document, before), &mut self.found)?;
                    }
                    // The message key may still say which row it was.
                    None if message_key.is_none() => {
                        return Err(DecodeError::MissingImage { op: letter });
                    }
                    None => {}
                }
                Vec::new()
            }
        };
        let key = self.plan.key(document, &mut self.found, message_key)?;
        let origin = envelope.block.origin(document, op)?;
        Ok(Decoded::Change(ChangeEvent { op, key, values, origin }))
    }
}

impl Plan {
    fn new(projection: &Projection, unavailable_value: &str) -> Self {
        let table = &*projection.table;
        // In the table's order, which is the order of an event's members.
        let mut columns: Vec<usize> = table.key.clone();
        columns.extend(projection.sources.iter().chain(&projection.targets));
        columns.sort_unstable();
        columns.dedup();
        let field = |index: &usize| {
            let at = columns.binary_search(index);
            at.expect("every column that is looked up was listed above")
        };
        Self {
            schema: table.schema.clone(),
            table: table.name.clone(),
            fields: columns.iter().map(|&index| Field::new(&table.columns[index])).collect(),
            key: table.key.iter().map(field).collect(),
            values: projection.sources.iter().chain(&projection.targets).map(field).collect(),
            unavailable: placeholder(unavailable_value),
        }
    }

    fn names_table(&self, document: &str, block: &SourceBlock) -> Result<bool, DecodeError> {
        let same = |token: Option<Token>, member, name: &Ident| {
            let text = token.and_then(|token| token.string(document));
            text.map(|text| text == name.as_str()).ok_or(DecodeError::Source { member })
        };
        let schema = same(block.schema, "schema", &self.schema)?;
        Ok(same(block.table, "table", &self.table)? && schema)
    }

    /// Reads a row image, and notes in `found` where the fields stand.
    fn image(
        &self,
        scanner: &mut Scanner<'_>,
        found: &mut [Option<Token>],
    ) -> Result<Token, DecodeError> {
        scanner.object(|scanner, name| {
            let token = scanner.value()?;
            self.note(&name, token, found)
        })
    }

    #[inline]
    fn note(
        &self,
        name: &str,
        token: Token,
        found: &mut [Option<Token>],
    ) -> Result<(), DecodeError> {
        match self.fields.iter().position(|field| field.name.as_str() == name) {
            Some(field) => once(&mut found[field], token),
            None => Ok(()),
        }
    }

    fn values(&self, document: &str, found: &[Option<Token>]) -> Result<Vec<Value>, DecodeError> {
        let mut values = Vec::with_capacity(self.values.len());
        for &index in &self.values {
            let field = &self.fields[index];
            let wire = match found[index] {
                Some(token) => self.read(field, token, document)?,
                None => Wire::Inexact,
            };
            values.push(match wire {
                Wire::Null if field.not_null => Value::Unknown,
                Wire::Null => Value::Null,
                Wire::Text(_) if field.defaulted => Value::Unknown,
                Wire::Text(text) => Value::text(text),
                Wire::Inexact => Value::Unknown,
            });
        }
        Ok(values)
    }

    /// Builds the key from the image in `found`, and what is not there from the message's key,
    /// which has all its columns even where the connector leaves some out of the value.
    fn key(
        &self,
        document: &str,
        found: &mut [Option<Token>],
        message_key: Option<&[u8]>,
    ) -> Result<Key, DecodeError> {
        if let [only] = self.key[..]
            && let Some(part) = self.part(only, document, found)?
        {
            return Ok(Key::one(part));
        }
        let mut parts = Vec::with_capacity(self.key.len());
        for &index in &self.key {
            parts.push(self.part(index, document, found)?);
        }
        if let Some(gap) = parts.iter().position(Option::is_none)
            && let Some(message_key) = message_key
        {
            let column = || self.fields[self.key[gap]].name.clone();
            let document = self
                .message_key(message_key, found)
                .map_err(|_| DecodeError::KeyNotJson { column: column() })?;
            for (part, &index) in parts.iter_mut().zip(&self.key) {
                if part.is_none() {
                    *part = self.part(index, document, found)?;
                }
            }
        }
        let mut whole = Vec::with_capacity(parts.len());
        for (part, &index) in parts.into_iter().zip(&self.key) {
            let column = || self.fields[index].name.clone();
            whole.push(part.ok_or_else(|| DecodeError::MissingKey { column: column() })?);
        }
        Ok(Key::new(whole))
    }

    /// A key column's value; `None` where the image does not say.
    fn part(
        &self,
        index: usize,
        document: &str,
        found: &[Option<Token>],
    ) -> Result<Option<Box<str>>, DecodeError> {
        let field = &self.fields[index];
        if field.kind == TypeKind::Other {
            return Err(DecodeError::KeyType { column: field.name.clone() });
        }
        let Some(token) = found[index] else { return Ok(None) };
        Ok(match self.read(field, token, document)? {
            Wire::Text(text) => Some(text.into()),
            Wire::Null | Wire::Inexact => None,
        })
    }

    /// Reads a message's key, with or without schema, and returns it as text.
    fn message_key<'a>(
        &self,
        key: &'a [u8],
        found: &mut [Option<Token>],
    ) -> Result<&'a str, DecodeError> {
        let document = std::str::from_utf8(key)
            .map_err(|error| DecodeError::NotUtf8 { offset: error.valid_up_to() })?;
        let mut scanner = Scanner::new(document);
        let (mut members, mut schema, mut payload) = (0, None, None);
        found.fill(None);
        scanner.object(|scanner, name| {
            members += 1;
            let token = scanner.value()?;
            match &*name {
                "schema" => schema = Some(token),
                "payload" => payload = Some(token),
                _ => {}
            }
            self.note(&name, token, found)
        })?;
        scanner.end()?;
        if let Some(payload) = wrapped(members, schema, payload)
            && payload.kind == Kind::Object
        {
            found.fill(None);
            self.image(&mut Scanner::at_object(document, payload), found)?;
        }
        Ok(document)
    }

    /// Reads one column; the placeholder for an unchanged value is inexact.
    fn read<'a>(
        &self,
        field: &Field,
        token: Token,
        document: &'a str,
    ) -> Result<Wire<'a>, DecodeError> {
        let column = || field.name.clone();
        match types::read(field.kind, token, document) {
            Ok(Wire::Text(text)) if text == *self.unavailable => Ok(Wire::Inexact),
            Ok(wire) => Ok(wire),
            Err(Mismatch::Kind { expected, found }) => {
                Err(DecodeError::WrongKind { column: column(), expected, found })
            }
            Err(Mismatch::NotText) => Err(DecodeError::NotText { column: column() }),
        }
    }
}

impl Field {
    fn new(column: &Column) -> Self {
        Self {
            name: column.name.clone(),
            kind: column.ty.kind,
            not_null: column.not_null,
            defaulted: column.has_default && !column.not_null,
        }
    }
}

impl SourceBlock {
    fn read(&mut self, scanner: &mut Scanner<'_>) -> Result<Token, DecodeError> {
        scanner.object(|scanner, name| {
            let token = scanner.value()?;
            let slot = match &*name {
                "schema" => &mut self.schema,
                "table" => &mut self.table,
                "snapshot" => &mut self.snapshot,
                "txId" => &mut self.xid,
                "lsn" => &mut self.lsn,
                "ts_us" => &mut self.micros,
                "ts_ms" => &mut self.millis,
                _ => return Ok(()),
            };
            once(slot, token)
        })
    }

    fn origin(&self, document: &str, op: Op) -> Result<Origin, DecodeError> {
        let lsn = integer(self.lsn, document, "lsn")?.map(Lsn);
        if self.is_snapshot(document)? || op == Op::Read {
            return Ok(Origin { xid: None, lsn, committed: None });
        }
        // Without it nothing tells when the row can be seen, and the event must not be judged.
        let xid: u64 =
            integer(self.xid, document, "txId")?.ok_or(DecodeError::Source { member: "txId" })?;
        let committed = match integer(self.micros, document, "ts_us")? {
            Some(micros) => Some(micros),
            // Connectors before 2.6 have milliseconds only.
            None => match integer::<i64>(self.millis, document, "ts_ms")? {
                Some(millis) => {
                    let micros = millis.checked_mul(1_000);
                    Some(micros.ok_or(DecodeError::Source { member: "ts_ms" })?)
                }
                None => None,
            },
        };
        Ok(Origin {
            xid: Some((xid & u64::from(u32::MAX)) as u32),
            lsn,
            committed: committed.map(DatabaseMicros),
        })
    }

    /// A string by its schema, a boolean in the documentation, null where the converter does not
    /// fill in defaults.
    fn is_snapshot(&self, document: &str) -> Result<bool, DecodeError> {
        let Some(token) = self.snapshot else { return Ok(false) };
        match token.kind {
            Kind::Null | Kind::False => Ok(false),
            Kind::True => Ok(true),
            Kind::Text | Kind::EscapedText => Ok(token.raw(document) != "false"),
            Kind::Integer | Kind::Fraction | Kind::Object | Kind::Array => {
                Err(DecodeError::Source { member: "snapshot" })
            }
        }
    }
}

/// Whether a record's value is an object, and not the null that follows a delete.
fn is_object(token: Token) -> Result<bool, DecodeError> {
    match token.kind {
        Kind::Object => Ok(true),
        Kind::Null => Ok(false),
        Kind::True
        | Kind::False
        | Kind::Integer
        | Kind::Fraction
        | Kind::Text
        | Kind::EscapedText
        | Kind::Array => Err(DecodeError::NotAnEvent),
    }
}

/// Fills a slot that must be empty.
#[inline]
fn once(slot: &mut Option<Token>, token: Token) -> Result<(), DecodeError> {
    match slot.replace(token) {
        None => Ok(()),
        Some(_) => Err(DecodeError::Twice { offset: token.start }),
    }
}

/// The payload, if an object's members are those of the form with schema: exactly these two. A
/// table may have columns of these names, but then `schema` is no object.
fn wrapped(members: usize, schema: Option<Token>, payload: Option<Token>) -> Option<Token> {
    let schema = schema?;
    payload.filter(|_| members == 2 && matches!(schema.kind, Kind::Object | Kind::Null))
}

/// A member of the source block that is a whole number, or null, or absent.
fn integer<T: std::str::FromStr>(
    token: Option<Token>,
    document: &str,
    member: &'static str,
) -> Result<Option<T>, DecodeError> {
    match token {
        None | Some(Token { kind: Kind::Null, .. }) => Ok(None),
        Some(token) => {
            let number = token.raw(document).parse().ok();
            let number = number.filter(|_| token.kind == Kind::Integer);
            number.map(Some).ok_or(DecodeError::Source { member })
        }
    }
}

/// Whether an object without `op` is one of the records that Debezium writes beside the changes.
///
/// By exactly their members: a flattened row has no `op` either, and taking it for a heartbeat would
/// lose it in silence.
fn side_record(document: &str, place: Token) -> Result<bool, DecodeError> {
    /// What each must have, and what it may have.
    const SHAPES: [(&[&str], &[&str]); 3] = [
        // heartbeat
        (&["ts_ms"], &["ts_us", "ts_ns"]),
        // transaction metadata
        (&["status", "id", "event_count", "data_collections"], &["ts_ms"]),
        // notification
        (&["id", "aggregate_type", "type"], &["additional_data", "timestamp"]),
    ];
    let mut missing = SHAPES.map(|(must, _)| must.len());
    let mut strange = [false; SHAPES.len()];
    Scanner::at_object(document, place).object(|scanner, name| {
        scanner.value()?;
        for (shape, (must, may)) in SHAPES.iter().enumerate() {
            if must.contains(&&*name) {
                missing[shape] = missing[shape].saturating_sub(1);
            } else if !may.contains(&&*name) {
                strange[shape] = true;
            }
        }
        Ok::<_, DecodeError>(())
    })?;
    Ok(missing.iter().zip(strange).any(|(missing, strange)| *missing == 0 && !strange))
}

/// The text of `unavailable.value.placeholder`, which may be given as `hex:` and octets.
fn placeholder(setting: &str) -> Box<str> {
    let octets = setting.strip_prefix("hex:").and_then(|hex| {
        let pair = |at| hex.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
        (0..hex.len()).step_by(2).map(pair).collect::<Option<Vec<u8>>>()
    });
    octets.and_then(|octets| String::from_utf8(octets).ok()).map_or(setting.into(), Into::into)
}
