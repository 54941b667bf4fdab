//! clatd.
