//! The connection to Redis: one server or a Cluster, with or without TLS, with or without a user.
//!
//! Owns the URL and the errors of a failed connection. The server itself reports whether it belongs to a Cluster, so
//! one URL works for both. Knows nothing about the stored data.

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use portcullis_redis_lua::Value;
use redis::cluster::{ClusterClient, ClusterConnection, ClusterPipeline};
use redis::cluster_routing::{
    MultipleNodeRoutingInfo, Route, RoutingInfo, SingleNodeRoutingInfo, SlotAddr,
};
use redis::{Client, Cmd, ConnectionAddr, ConnectionLike, FromRedisValue, Pipeline};
// Linked for its cryptography provider: the Redis client takes the only one there is.
use rustls as _;

use crate::cause::Cause;
use crate::report::CliError;

/// How long a command waits for each answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
const EXPECTED: &str = "a URL such as redis://127.0.0.1:6379/ or rediss://user:password@host:6379/, or several with commas between them";

/// An open connection.
pub(crate) struct Connection {
    channel: Channel,
    /// Hosts and ports; never a password.
    address: String,
    /// The user in the URL.
    user: Option<String>,
    patience: Duration,
}

enum Channel {
    Server(Box<redis::Connection>),
    Cluster(Box<ClusterConnection>),
}

/// A server's information about itself.
pub(crate) struct Node {
    /// Its address in a Cluster.
    pub(crate) address: Option<String>,
    /// The reply to `INFO`.
    pub(crate) info: String,
}

/// How many replicas have the last change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Spread {
    /// Every replica has it, or there is none.
    Everywhere,
    /// Some replicas do not have it yet.
    Partly { reached: u64, replicas: u64 },
    /// Unknown, for this reason.
    Unknown(String),
}

/// The guarantees for several commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Topology {
    /// All keys are in one place: a transaction may cover any of them.
    Server,
    /// Each hash tag has its own place: there are no transactions, and a script covers one tag.
    Cluster,
}

impl Connection {
    /// Connects to the first of the comma-separated `urls` that answers; to all nodes, if it belongs to a Cluster. No
    /// answer takes longer than `patience`.
    pub(crate) fn open(urls: &str, patience: Duration) -> Result<Self, CliError> {
        let clients = urls.split(',').map(str::trim).map(client).collect::<Result<Vec<_>, _>>()?;
        let addresses: Vec<_> =
            clients.iter().map(|client| client.get_connection_info().addr().to_string()).collect();
        let address = format!("Redis at {}", addresses.join(", "));
        let mut failure = None;
        for client in &clients {
            let server = connect(client, patience);
            match server.and_then(|server| joined(server, &clients, patience)) {
                Ok(channel) => {
                    let user = client.get_connection_info().redis_settings().username();
                    let user = user.map(str::to_owned);
                    return Ok(Self { channel, address, user, patience });
                }
                Err(error) if speaks_plainly(client) => {
                    let found =
                        format!("the server speaks no TLS, and the URL asks for it: {error}");
                    return Err(CliError::new(found, &address)
                        .expected("rediss:// for a server with TLS, redis:// for one without")
                        .next("redis:// in --redis or PORTCULLIS_REDIS, or the port on which the server has TLS (tls-port)")
                        .unanswered()
                        .unavailable());
                }
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.map_or_else(
            || CliError::usage("no Redis URL").expected(EXPECTED),
            |error| connection_error(&address, &error, patience),
        ))
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    pub(crate) fn topology(&self) -> Topology {
        match self.channel {
            Channel::Server(_) => Topology::Server,
            Channel::Cluster(_) => Topology::Cluster,
        }
    }

    /// The information of each server about itself.
    pub(crate) fn nodes(&mut self) -> Result<Vec<Node>, CliError> {
        let info = redis::cmd("INFO");
        Ok(match self.topology() {
            Topology::Server => vec![Node { address: None, info: self.query(&info)? }],
            Topology::Cluster => {
                let nodes: Vec<(String, String)> = self.query(&info)?;
                let node = |(address, info)| Node { address: Some(address), info };
                nodes.into_iter().map(node).collect()
            }
        })
    }

    /// Runs one command; returns its reply as the wanted type.
    pub(crate) fn query<T: FromRedisValue>(&mut self, command: &Cmd) -> Result<T, CliError> {
        let reply = command.query(self.channel());
        reply.map_err(|error| self.unavailable(&error))
    }

    /// Runs a transaction. Only on a single server: the client library has none for a Cluster, where scripts replace
    /// it.
    pub(crate) fn transaction<T: FromRedisValue>(
        &mut self,
        transaction: &Pipeline,
    ) -> Result<T, CliError> {
        let reply = transaction.query(self.channel());
        reply.map_err(|error| self.unavailable(&error))
    }

    /// Runs several commands at once, each with its own key on any server; returns their replies in order.
    pub(crate) fn all<T: FromRedisValue>(
        &mut self,
        commands: Vec<Cmd>,
    ) -> Result<Vec<T>, CliError> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let replies = match &mut self.channel {
            Channel::Server(server) => {
                let mut pipeline = Pipeline::with_capacity(commands.len());
                for command in commands {
                    pipeline.add_command(command);
                }
                pipeline.query(server.as_mut())
            }
            Channel::Cluster(cluster) => {
                let mut pipeline = ClusterPipeline::with_capacity(commands.len());
                for command in commands {
                    pipeline.add_command(command);
                }
                pipeline.query(cluster)
            }
        };
        replies.map_err(|error| self.unavailable(&error))
    }

    /// Runs one command without a key on the server that has `key`.
    pub(crate) fn query_beside<T: FromRedisValue>(
        &mut self,
        key: &str,
        command: &Cmd,
    ) -> Result<T, CliError> {
        let reply = match &mut self.channel {
            Channel::Server(server) => command.query(server.as_mut()),
            Channel::Cluster(cluster) => {
                let route = Route::with_key(key, SlotAddr::Master);
                let node = SingleNodeRoutingInfo::SpecificNode(route);
                let reply = cluster.route_command(command, RoutingInfo::SingleNode(node));
                reply.and_then(|reply| Ok(redis::from_redis_value(reply)?))
            }
        };
        reply.map_err(|error| self.unavailable(&error))
    }

    /// Runs one command on every server, for data that is not replicated, such as users; returns each reply.
    pub(crate) fn everywhere(&mut self, command: &Cmd) -> Result<Vec<Value>, CliError> {
        let replies = match &mut self.channel {
            Channel::Server(server) => server.req_command(command).map(|reply| vec![reply]),
            Channel::Cluster(cluster) => {
                let all = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllNodes, None));
                cluster.route_command(command, all).map(|reply| match reply {
                    redis::Value::Map(nodes) => nodes.into_iter().map(|(_, reply)| reply).collect(),
                    other => vec![other],
                })
            }
        };
        match replies {
            Ok(replies) => Ok(replies.into_iter().map(neutral).collect()),
            Err(error) => Err(self.unavailable(&error)),
        }
    }

    /// Waits until the replicas of the server that has `key` have the last write, for a second at most.
    pub(crate) fn spread(&mut self, key: &str) -> Spread {
        const WITHIN_MS: u64 = 1_000;
        let info = self.query_beside::<String>(key, redis::cmd("INFO").arg("replication"));
        let info = match info {
            Ok(info) => info,
            Err(connection_error) => return Spread::Unknown(connection_error.found().to_owned()),
        };
        let replicas = info.lines().find_map(|line| line.trim().strip_prefix("connected_slaves:"));
        let replicas = replicas.and_then(|count| count.parse::<u64>().ok()).unwrap_or_default();
        if replicas == 0 {
            return Spread::Everywhere;
        }
        let wait = redis::cmd("WAIT").arg(replicas).arg(WITHIN_MS).clone();
        match self.query_beside::<u64>(key, &wait) {
            Ok(reached) if reached >= replicas => Spread::Everywhere,
            Ok(reached) => Spread::Partly { reached, replicas },
            Err(connection_error) => Spread::Unknown(connection_error.found().to_owned()),
        }
    }

    /// Runs one command from words; returns any reply, including an error of a script.
    pub(crate) fn words(&mut self, words: &[impl AsRef<[u8]>]) -> Result<Value, CliError> {
        let mut command = Cmd::new();
        for word in words {
            command.arg(word.as_ref());
        }
        match self.channel().req_command(&command) {
            Ok(reply) => Ok(neutral(reply)),
            // A Cluster connection returns an error where a plain one returns a reply.
            Err(error) if error.code().is_some() && !error.is_io_error() => {
                let code = error.code().unwrap_or_default();
                Ok(Value::Error(format!("{code} {}", error.detail().unwrap_or_default())))
            }
            Err(error) => Err(self.unavailable(&error)),
        }
    }

    fn channel(&mut self) -> &mut dyn ConnectionLike {
        match &mut self.channel {
            Channel::Server(server) => server.as_mut(),
            Channel::Cluster(cluster) => cluster.as_mut(),
        }
    }

    fn unavailable(&self, error: &redis::RedisError) -> CliError {
        connection_error(&self.address, error, self.patience)
    }
}

fn client(url: &str) -> Result<Client, CliError> {
    let unreadable = |error| {
        CliError::usage(format!("the Redis URL cannot be read: {error}")).expected(EXPECTED)
    };
    let client = Client::open(url).map_err(unreadable)?;
    let info = client.get_connection_info().clone();
    // The library would wait for the answer to its own name, and then go on without one.
    let settings = info.redis_settings().clone().set_skip_set_lib_name();
    match settings.db() {
        0 => Client::open(info.set_redis_settings(settings)).map_err(unreadable),
        // Gateways would not read a write to that database.
        other => Err(CliError::usage(format!("the Redis URL names database {other}"))
            .expected("database 0, as in redis://host:6379/: gateways read no other, and a Cluster has no other")
            .next("leave the number out; another deployment needs a Redis server of its own")),
    }
}

fn connect(client: &Client, patience: Duration) -> redis::RedisResult<redis::Connection> {
    let connection = client.get_connection_with_timeout(patience)?;
    connection.set_read_timeout(Some(patience))?;
    connection.set_write_timeout(Some(patience))?;
    Ok(connection)
}

/// Whether a server that failed for `rediss://` answers without TLS, where it would wait for ever for the rest of a
/// line.
fn speaks_plainly(client: &Client) -> bool {
    const PROMPT: Duration = Duration::from_secs(1);
    let ConnectionAddr::TcpTls { host, port, .. } = client.get_connection_info().addr() else {
        return false;
    };
    let answer = || -> std::io::Result<[u8; 1]> {
        let mut addresses = (host.as_str(), *port).to_socket_addrs()?;
        let address = addresses.next().ok_or(std::io::ErrorKind::AddrNotAvailable)?;
        let mut stream = TcpStream::connect_timeout(&address, PROMPT)?;
        stream.set_read_timeout(Some(PROMPT))?;
        // No secret is sent over this connection.
        stream.write_all(b"PING\r\n")?;
        let mut first = [0];
        stream.read_exact(&mut first)?;
        Ok(first)
    };
    // `+PONG`, or an error of a server that requires a password. A TLS answer begins with a number below 32.
    matches!(answer(), Ok([b'+' | b'-']))
}

/// The server alone, or the Cluster to which it belongs.
fn joined(
    mut server: redis::Connection,
    clients: &[Client],
    patience: Duration,
) -> redis::RedisResult<Channel> {
    // Refused by a single server, and for a user without permission for Clusters.
    let slots: redis::RedisResult<redis::Value> =
        redis::cmd("CLUSTER").arg("SLOTS").query(&mut server);
    match slots {
        Ok(_) => {}
        // A server that hangs is asked nothing more.
        Err(error) if error.is_timeout() => return Err(error),
        Err(_) => return Ok(Channel::Server(Box::new(server))),
    }
    let nodes = clients.iter().map(|client| client.get_connection_info().clone());
    let cluster = ClusterClient::builder(nodes)
        .connection_timeout(patience)
        .response_timeout(patience)
        .build()?
        .get_connection()?;
    Ok(Channel::Cluster(Box::new(cluster)))
}

fn connection_error(address: &str, error: &redis::RedisError, patience: Duration) -> CliError {
    // The library's text for some codes is better; the system's text for a timeout is not helpful.
    let text = match error.code() {
        None if error.is_timeout() => format!("no answer within {} s", patience.as_secs()),
        Some(code) if !error.to_string().contains(code) => format!("{code} {error}"),
        _ => error.to_string(),
    };
    if let Some(cause) = Cause::of(&text) {
        // Redis answered, and changed nothing.
        return CliError::of(cause, &text, address);
    }
    let answered = error.code().is_some() && !error.is_io_error();
    let connection_error = CliError::new(text, address)
        .expected(
            "a Redis 7 or Valkey server that answers, and a user who may do what docs/reference/redis-keys.md lists",
        )
        .next("check --redis or PORTCULLIS_REDIS; for rediss://, SSL_CERT_FILE names the CA");
    if answered { connection_error } else { connection_error.unanswered().unavailable() }
}

fn neutral(reply: redis::Value) -> Value {
    match reply {
        redis::Value::Nil => Value::Nil,
        redis::Value::Int(number) => Value::Int(number),
        redis::Value::BulkString(bytes) => Value::Bulk(bytes),
        redis::Value::SimpleString(text) => Value::Status(text),
        redis::Value::Okay => Value::Status("OK".to_owned()),
        redis::Value::Array(elements) => Value::Array(elements.into_iter().map(neutral).collect()),
        redis::Value::ServerError(error) => {
            Value::Error(format!("{} {}", error.code(), error.details().unwrap_or_default()))
        }
        other => Value::Error(format!("a reply that RESP2 does not have: {other:?}")),
    }
}
