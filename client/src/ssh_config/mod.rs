//! Making plain `ssh` reach devices: a block for ssh_config(5), and its inclusion in the user's own.

mod block;
mod include;
mod quote;

pub use block::{Block, BlockError};
pub use include::{IncludeError, Included, include_first};
pub use quote::{shell_word, ssh_path};
