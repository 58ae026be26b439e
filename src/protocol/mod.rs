//! Who is granted what, and when. It joins the tree, which knows no fairness, and the waiting, which knows no requests.

pub(crate) mod announce;
pub(crate) mod convert;
pub(crate) mod cycle;
pub(crate) mod drain;
pub(crate) mod grant;
pub(crate) mod lock_state;
pub(crate) mod poison;
pub(crate) mod turn;
