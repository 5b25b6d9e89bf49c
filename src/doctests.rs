//! The examples of the README, as documentation tests. The examples of the guide are in `guide`.

#[doc = include_str!("../README.md")]
struct Readme;
