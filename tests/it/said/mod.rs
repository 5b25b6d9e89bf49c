//! What errors say: only what is known, each fact once, and what to do about it.

mod chain;
mod every_kind;
mod mistakes;
mod silent;
