//! A Redis Cluster of three Valkeys on loopback, without replicas.
//!
//! Owns the distribution of slots, and the wait until all three nodes agree. Knows nothing about the stored data.

use crate::error::{Result, StackError};
use crate::ports::free_port;
use crate::ready;
use crate::redis_users::RedisUsers;
use crate::valkey::{Valkey, ValkeyOptions};
use std::path::Path;
use std::time::Duration;

const SLOTS: [(u16, u16); 3] = [(0, 5_460), (5_461, 10_922), (10_923, 16_383)];
const READY_WITHIN: Duration = Duration::from_secs(20);

/// Starts three nodes and makes one Cluster of them; the first listens on `port`.
pub(crate) fn start(
    program: &Path,
    dir: &Path,
    logs: &Path,
    port: u16,
    users: &RedisUsers,
) -> Result<[Valkey; 3]> {
    let node = |name: &str, port| {
        Valkey::with(ValkeyOptions {
            name: name.to_owned(),
            users: Some(users.clone()),
            cluster_port: Some(free_port()?),
            ..ValkeyOptions::new(program, dir, logs, port)
        })
    };
    let nodes =
        [node("valkey", port)?, node("valkey-2", free_port()?)?, node("valkey-3", free_port()?)?];
    for (node, (first, last)) in nodes.iter().zip(SLOTS) {
        let mut commands = vec![format!("CLUSTER ADDSLOTSRANGE {first} {last}")];
        let others = nodes.iter().filter(|other| other.address() != node.address());
        commands.extend(others.map(|other| other.meeting()));
        for (command, reply) in commands.iter().zip(said(node, &commands)?) {
            if reply != "+OK" {
                return Err(refused(command, reply));
            }
        }
    }
    agreed(&nodes)?;
    Ok(nodes)
}

/// Waits until every node counts every slot as served.
fn agreed(nodes: &[Valkey]) -> Result<()> {
    ready::eventually("a Redis Cluster that agrees", READY_WITHIN, || {
        nodes.iter().all(Valkey::sees_the_whole_cluster).then_some(())
    })
}

fn said(node: &Valkey, commands: &[String]) -> Result<Vec<String>> {
    node.administer(commands).map_err(|error| refused("CLUSTER", error.to_string()))
}

fn refused(command: &str, answer: String) -> StackError {
    StackError::Refused { attempted: command.to_owned(), answer }
}
