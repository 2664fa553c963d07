//! The JSON schema of a config file, for editors.
//!
//! An editor sees the file before its variables are filled in, so every value may also be a string
//! with `${` in it.

use serde_json::{Map, Value, json};

use super::keys::{self, Key, Kind, Presence, Section};

/// The schema, pretty-printed, with a line end.
///
/// Draft 7: the newest that Taplo, and so Even Better TOML, reads.
pub fn schema() -> String {
    let top = keys::section("").expect("the list starts with the file itself");
    let Value::Object(mut object) = section(top) else { unreachable!("a section is an object") };
    object.insert("$schema".to_owned(), json!("http://json-schema.org/draft-07/schema#"));
    object.insert("title".to_owned(), json!("Crossfade migration"));
    let text = serde_json::to_string_pretty(&Value::Object(object));
    text.expect("a schema has string keys only") + "\n"
}

fn section(of: &Section) -> Value {
    let mut properties = Map::new();
    let mut free = json!(false);
    let mut required = Vec::new();
    let mut either = Vec::new();
    for key in keys::keys_in(of.path) {
        match key.presence {
            Presence::Required { .. } => required.push(key.name()),
            Presence::Either { .. } => either.push(json!({ "required": [key.name()] })),
            Presence::Optional { .. } | Presence::Default(_) | Presence::Derived { .. } => {}
        }
        place(key.name(), value(key), &mut properties, &mut free);
    }
    for below in keys::sections_in(of.path) {
        if below.required && below.name() != "*" {
            required.push(below.name());
        }
        place(below.name(), section(below), &mut properties, &mut free);
    }
    let mut object = json!({
        "type": "object",
        "description": of.doc,
        "additionalProperties": free,
    });
    if !properties.is_empty() {
        object["properties"] = Value::Object(properties);
    }
    if !required.is_empty() {
        object["required"] = json!(required);
    }
    if !either.is_empty() {
        object["oneOf"] = json!(either);
    }
    if keys::sections_in(of.path).any(|below| below.name() == "*" && below.required) {
        object["minProperties"] = json!(1);
    }
    if of.path == "table" {
        object["propertyNames"] = json!({ "pattern": r"^[^.]+\.[^.]+$" });
        object["maxProperties"] = json!(1);
    }
    object
}

fn place(name: &str, schema: Value, properties: &mut Map<String, Value>, free: &mut Value) {
    if name == "*" {
        *free = schema;
    } else {
        properties.insert(name.to_owned(), schema);
    }
}

fn value(key: &Key) -> Value {
    let variable = json!({ "type": "string", "pattern": r"\$\{" });
    let matching = |pattern: &str| json!({ "type": "string", "pattern": pattern });
    let own = match key.kind {
        Kind::Version => json!({ "type": "integer", "enum": [1] }),
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Whole { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Kind::Word(words) => json!({ "type": "string", "enum": words }),
        Kind::Name => matching("^[a-z0-9_-]{1,48}$"),
        Kind::SlotName => matching("^[a-z0-9_]{1,63}$"),
        Kind::Topic => matching("^[a-zA-Z0-9._-]{1,249}$"),
        Kind::Time { .. } => matching("^[0-9]+(ms|s|m|h|d)$"),
        Kind::Size { .. } => matching("^[0-9]+([KMGT]i?)?B$"),
        Kind::HostPorts => matching("^[^,]+:[0-9]+(,[^,]+:[0-9]+)*$"),
        Kind::Listen => matching(r"^(off|127\.[0-9.]+:[0-9]+|\[::1\]:[0-9]+)$"),
        Kind::HttpUrl => matching("^https?://[^@]+$"),
        Kind::Idents => json!({
            "type": "array",
            "items": { "type": "string", "minLength": 1 },
            "minItems": 1,
            "uniqueItems": true,
        }),
        Kind::Text | Kind::Ident | Kind::File | Kind::Connection | Kind::Property => {
            json!({ "type": "string", "minLength": 1 })
        }
    };
    // Where any text will do, or a list must be one, a variable needs no rule of its own.
    let is_open = matches!(
        key.kind,
        Kind::Text | Kind::Ident | Kind::File | Kind::Connection | Kind::Property | Kind::Idents
    );
    let mut schema = if is_open { own } else { json!({ "anyOf": [own, variable] }) };
    schema["description"] = json!(format!("{} ({})", key.doc, key.kind.expected()));
    if let Presence::Default(default) = key.presence {
        let default = default.parse().unwrap_or_else(|_| json!(default.trim_matches('"')));
        schema["default"] = default;
    }
    schema
}
