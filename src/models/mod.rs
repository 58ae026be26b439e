//! Loom models of the tree and of the grants, run against the code itself.
