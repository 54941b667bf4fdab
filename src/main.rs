//! clatd.

fn main() {}
