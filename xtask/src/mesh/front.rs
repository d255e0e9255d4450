//! The server behind the gateway: the demo's server, with streams.
//!
//! Owns its process. It records its streams, and answers those that a file releases.

use super::cluster::made;
use crate::failure::Result;
use portcullis_stack::ports::{free_port, loopback};
use portcullis_stack::{Process, Tools, ready};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

const SCRIPT: &str = include_str!("front.py");
const READY_WITHIN: Duration = Duration::from_secs(60);

/// The demo's server, with streams.
pub(crate) struct Front {
    address: SocketAddr,
    record: PathBuf,
    released: PathBuf,
    _process: Process,
}

impl Front {
    pub(crate) fn start(
        tools: &Tools,
        server: SocketAddr,
        dir: &Path,
        logs: &Path,
    ) -> Result<Self> {
        let (record, released) = (dir.join("streams.txt"), dir.join("released"));
        made(&released)?;
        let address = loopback(free_port()?);
        let mut command = tools.python_command();
        command.args(["-c", SCRIPT, &address.port().to_string(), &server.port().to_string()]);
        command.arg(&record).arg(&released);
        let process = Process::spawn("front", command, &logs.join("front.log"))?;
        ready::process_is_ready(&process, READY_WITHIN, || ready::accepts(address))?;
        Ok(Self { address, record, released, _process: process })
    }

    /// The address at which the gateways reach the demo's server.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn record(&self) -> &Path {
        &self.record
    }

    pub(crate) fn released(&self) -> &Path {
        &self.released
    }
}
