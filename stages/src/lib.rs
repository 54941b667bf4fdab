//! The pipeline as data.
