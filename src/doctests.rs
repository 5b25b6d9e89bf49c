//! The examples of the documents, as documentation tests.

#[doc = include_str!("../README.md")]
struct Readme;

#[doc = include_str!("../docs/from-python.md")]
struct FromPython;

#[doc = include_str!("../docs/failover.md")]
struct Failover;
