//! Typed settings and how they are read.

pub mod secret;
pub mod settings;

pub use secret::Secret;
pub use settings::Settings;
