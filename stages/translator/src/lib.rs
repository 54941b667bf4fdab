//! RFC 7915 translation on byte slices.
