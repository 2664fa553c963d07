//! Typed settings and how they are read.
//!
//! ```text
//! bytes ─toml→ spanned table ─walk→ entries ─check→ ─load→ Settings
//! ```
//!
//! Every stage adds to one list of problems, so that one run shows all that one edit must mend.
//! serde would stop at the first one, and forget where a value came from.

pub mod secret;
pub mod settings;

pub mod keys;
pub mod unit;

mod check;
mod digest;
mod entry;
mod error;
mod interpolate;
mod load;
mod mask;
mod print;
mod reference;
mod schema;
mod value;
mod walk;

#[cfg(test)]
mod golden;

pub use check::is_local;
pub use digest::digest;
pub use error::{Code, ConfigErrors, Problem};
pub use load::{Loaded, load, parse};
pub use reference::reference;
pub use schema::schema;
pub use secret::Secret;
pub use settings::Settings;
