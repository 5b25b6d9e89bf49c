//! The texts of errors: only known facts, each one once, with advice.

mod chain;
mod every_kind;
mod mistakes;
mod silent;
