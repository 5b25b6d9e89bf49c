//! Tests of the texts of errors: each text states only known facts, states each fact once, and gives advice.

mod chain;
mod every_kind;
mod mistakes;
mod silent;
