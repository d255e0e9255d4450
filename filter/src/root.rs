//! The plugin on one thread: its configuration, and the target of callbacks.
//!
//! Owns the meaning of a root id. Envoy also makes a root context on its main thread; that one never sees a request, so
//! it never opens a stream.

use std::cell::RefCell;
use std::rc::Rc;

use log::{error, info};
use portcullis_core::audit::Chain;
use portcullis_core::config::Config;

use crate::frame::Frame;
use crate::gateway::Gateway;
use crate::host::{self, BufferType};
use crate::http_context::HttpContext;
use crate::stream::{Closed, Stream};

/// A root context.
pub(crate) struct Root {
    id: u32,
    role: RefCell<Role>,
}

/// The role of this plugin instance, from its root id.
#[derive(Clone)]
enum Role {
    /// Not configured, or with a faulty configuration: no request passes.
    Unconfigured,
    /// The framing filter of the Redis stream.
    Frame,
    /// The gateway.
    Gateway(Rc<Gateway>),
}

impl Root {
    pub(crate) fn new(id: u32) -> Self {
        Self { id, role: RefCell::new(Role::Unconfigured) }
    }

    fn role(&self) -> Role {
        self.role.borrow().clone()
    }

    fn gateway(&self) -> Option<Rc<Gateway>> {
        match self.role() {
            Role::Gateway(gateway) => Some(gateway),
            Role::Unconfigured | Role::Frame => None,
        }
    }

    /// Applies the configuration, or returns all its faults.
    fn configure(&self, size: usize) -> Result<(), String> {
        let bytes = match size {
            0 => Vec::new(),
            size => host::buffer(BufferType::PluginConfiguration, size)
                .map_err(|_| "the host does not show the plugin configuration".to_owned())?,
        };
        let document = serde_json::from_slice(&bytes)
            .map_err(|error| format!("the plugin configuration is not JSON: {error}"))?;
        let config = Config::parse(&document).map_err(|faults| faults.to_string())?;
        match self.role() {
            Role::Gateway(gateway) => gateway.reconfigure(config),
            Role::Unconfigured | Role::Frame => {
                let (name, seed) = chain_name()?;
                // `portcullis doctor` searches for this mark in a module's file.
                info!(
                    concat!("portcullis-build=", env!("PORTCULLIS_BUILD"), "; audit chain {}"),
                    name
                );
                let build = env!("PORTCULLIS_BUILD");
                let gateway =
                    Gateway::start(self.id, config, Chain::new(name).of_build(build), seed, build);
                self.role.replace(Role::Gateway(Rc::new(gateway)));
            }
        }
        Ok(())
    }

    pub(crate) fn on_configure(&self, size: usize) -> bool {
        if host::property(&["plugin_root_id"]).as_deref() == Some(b"frame") {
            self.role.replace(Role::Frame);
            return true;
        }
        match self.configure(size) {
            Ok(()) => true,
            Err(faults) => {
                for fault in faults.lines() {
                    error!("configuration refused: {fault}");
                }
                false
            }
        }
    }

    /// Handles the orderly end of the plugin.
    pub(crate) fn on_delete(&self) {
        if let Some(gateway) = self.gateway() {
            gateway.end();
        }
    }

    pub(crate) fn on_tick(&self) {
        if let Some(gateway) = self.gateway() {
            gateway.tick();
        }
    }

    pub(crate) fn on_queue_ready(&self, queue: u32) {
        if let Some(gateway) = self.gateway() {
            gateway.woken(queue);
        }
    }

    pub(crate) fn on_http_call_response(&self, token: u32, headers: usize, size: usize) {
        if let Some(gateway) = self.gateway() {
            gateway.http_answered(token, headers, size);
        }
    }

    pub(crate) fn on_grpc_stream_message(&self, token: u32, size: usize) {
        if let Some(gateway) = self.gateway() {
            gateway.redis_received(token, size);
        }
    }

    pub(crate) fn on_grpc_stream_close(&self, token: u32) {
        if let Some(gateway) = self.gateway() {
            gateway.redis_ended(token);
        }
    }

    pub(crate) fn create_http_context(&self, id: u32) -> Box<dyn HttpContext> {
        match self.role() {
            Role::Unconfigured => Box::new(Closed),
            Role::Frame => Box::new(Frame::default()),
            Role::Gateway(gateway) => Box::new(Stream::new(id, gateway)),
        }
    }
}

/// A name that no other VM has, and a seed for uses that need no secret.
fn chain_name() -> Result<(String, u64), String> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| format!("the host has no randomness: {error}"))?;
    let seed = u64::from_be_bytes(bytes);
    Ok((format!("{seed:016x}"), seed))
}
