//! Tests that are run with both values of `when-idle`.

/// Makes two tests of each, which gets the setting: what runs follows the network in every mode. Tests that begin with
/// nothing to do, and end so, are about `when-idle=wait` alone: with `exit` there would be no daemon.
macro_rules! in_both_modes {
    ($($name:ident),+ $(,)?) => {$(
        mod $name {
            #[test]
            fn when_idle_wait() {
                super::$name("when-idle=wait");
            }
            #[test]
            fn when_idle_exit() {
                super::$name("when-idle=exit");
            }
        }
    )+};
}
