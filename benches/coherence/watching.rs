//! A stand-in for the library's `watching`.

/// What the library tells those who watch it: nobody does, but for what becomes of the tree.
pub(crate) mod telemetry {
    use crate::facts::mode::Mode;
    use crate::facts::owner::OwnerId;
    use crate::facts::range::ByteRange;
    use std::fmt;

    pub(crate) struct WaitClock(());

    impl WaitClock {
        pub(crate) fn granted(self) {}
    }

    pub(crate) fn waiting(_range: ByteRange, _mode: Mode, _owner: OwnerId) -> WaitClock {
        WaitClock(())
    }
    pub(crate) fn acquired() {}
    pub(crate) fn contended() {}
    pub(crate) fn nested() {}
    pub(crate) fn passed(_pairs: usize) {}
    pub(crate) fn went_before() {}
    pub(crate) fn woken_in_vain() {}
    pub(crate) fn granted_late(_: std::time::Duration) {}
    pub(crate) fn node_grown() {
        crate::cpus::node_made();
    }
    pub(crate) fn node_pruned(_nodes: usize) {}
    pub(crate) fn deadlock(_cycle: &dyn fmt::Display) {}
}
