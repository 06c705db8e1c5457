//! Integration tests: one binary, since every test binary links the SDK, SQLite and TLS.
