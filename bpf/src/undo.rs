//! What has to be undone that does not go with its process: written down before it is done.
//!
//! Invariants: undoing what was never done, or is undone already, is no error; what is ours is told from what is not by its name.
//! Next: `registry`, which holds the lists.

use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::device::Device;
use crate::error::{During as _, Result};
use crate::select::Way;
use crate::{link, netns};

/// One thing to undo.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "undo")]
pub enum Undo {
    /// Files that hold programs in a BPF file system, and their directory.
    Unpin {
        /// The directory.
        dir: PathBuf,
    },
    /// A filter of ours on a device.
    Filter {
        /// Name of its network namespace; that of this process without.
        netns: Option<String>,
        /// The device.
        dev: String,
        /// Its direction.
        way: Way,
    },
}

impl Undo {
    /// Undoes it.
    ///
    /// # Errors
    /// It is there, and cannot be undone.
    pub fn run(&self) -> Result<()> {
        match self {
            Self::Unpin { dir } => {
                let Ok(entries) = fs::read_dir(dir) else { return Ok(()) };
                for entry in entries.flatten() {
                    fs::remove_file(entry.path())
                        .during(|| format!("unpin {}", entry.path().display()))?;
                }
                fs::remove_dir(dir).during(|| format!("remove {}", dir.display()))?;
                // The directory of all of them goes with the last.
                let _ = dir.parent().map(fs::remove_dir);
                Ok(())
            }
            Self::Filter { netns, dev, way } => netns::within(netns.as_deref(), || {
                // With the device, or its namespace, the filter is gone too.
                Device::open(dev).map_or(Ok(()), |device| link::remove_filter(&device, *way))
            })
            .unwrap_or(Ok(())),
        }
    }
}
