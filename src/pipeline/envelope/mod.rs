//! Decoders: bytes of a source in, [`crate::pipeline::Decoded`] out. Pure.
