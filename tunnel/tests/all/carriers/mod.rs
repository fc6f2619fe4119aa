//! Both carriers under one suite, and the ways to them: proxies, the race, a blocked UDP.

mod hostile;
mod quiet;
pub(crate) mod rig;
mod same;
mod ways;
