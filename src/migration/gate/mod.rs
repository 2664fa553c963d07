//! Gates: questions whose answer is proven, or closed.

pub mod catch_up;
