//! Users of Redis. Owns the `ACL` commands; `redis-lua` owns the permissions.

use portcullis_core::id::OrgId;
use portcullis_redis_lua::{Key, Value, tasks_of};

use super::Store;
use crate::cause::Cause;
use crate::report::CliError;

/// A user of Redis.
pub(crate) struct AclUser {
    pub(crate) name: String,
    /// Its line in `ACL LIST`.
    line: String,
}

impl AclUser {
    pub(crate) fn is_on(&self) -> bool {
        self.line.split(' ').any(|word| word == "on")
    }

    /// Whether any client that reaches Redis can use it.
    pub(crate) fn needs_no_password(&self) -> bool {
        self.is_on() && self.line.split(' ').any(|word| word == "nopass")
    }

    /// Organisations (`None` is all), with the user's tasks there.
    pub(crate) fn tasks(&self) -> Vec<(Option<String>, Vec<portcullis_redis_lua::Task>)> {
        tasks_of(&self.line)
    }
}

impl Store {
    /// All users, sorted by name.
    pub(crate) fn users(&mut self) -> Result<Vec<AclUser>, CliError> {
        let lines: Vec<String> = self.query(redis::cmd("ACL").arg("LIST"))?;
        let user = |line: String| {
            let name = line.split(' ').nth(1)?.to_owned();
            Some(AclUser { name, line })
        };
        let mut users: Vec<AclUser> = lines.into_iter().filter_map(user).collect();
        users.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(users)
    }

    /// Makes a user, on every server of a Cluster.
    pub(crate) fn set_user(&mut self, name: &str, rules: &[String]) -> Result<(), CliError> {
        self.acl(redis::cmd("ACL").arg("SETUSER").arg(name).arg("reset").arg(rules)).map(drop)
    }

    /// Ends the connections of a user, which stay open after a change of the password; returns their number.
    pub(crate) fn end_connections(&mut self, name: &str) -> Result<i64, CliError> {
        let replies = self.acl(redis::cmd("CLIENT").arg("KILL").arg("USER").arg(name))?;
        let ended = replies.iter().map(|reply| match reply {
            Value::Int(ended) => *ended,
            _ => 0,
        });
        Ok(ended.sum())
    }

    /// Removes a user; returns whether it existed.
    pub(crate) fn delete_user(&mut self, name: &str) -> Result<bool, CliError> {
        let replies = self.acl(redis::cmd("ACL").arg("DELUSER").arg(name))?;
        Ok(replies.iter().any(|reply| !matches!(reply, Value::Int(0))))
    }

    /// Makes each server write its users to its aclfile; returns an error if one did not.
    pub(crate) fn save_users(&mut self) -> Result<(), CliError> {
        self.acl(redis::cmd("ACL").arg("SAVE")).map(drop)
    }

    fn acl(&mut self, command: &redis::Cmd) -> Result<Vec<Value>, CliError> {
        let replies = self.connection.everywhere(command)?;
        for reply in &replies {
            if let Value::Error(text) = reply {
                let address = self.connection.address();
                return Err(match Cause::of(text) {
                    Some(cause) => CliError::of(cause, text, address),
                    None => CliError::new(text.clone(), address),
                });
            }
        }
        Ok(replies)
    }

    /// Adds an organisation to the list, for which its own operators have no permission.
    pub(crate) fn lists_organisation(&mut self, org: &OrgId) -> Result<(), CliError> {
        self.query(redis::cmd("SADD").arg(Key::organisations().as_str()).arg(org.as_str()))
    }

    /// The URL of this Redis for another user.
    pub(crate) fn url_for(&self, user: &str, password: &str) -> String {
        let with_user = |url: &str| {
            let (scheme, rest) = url.trim().split_once("://")?;
            let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
            Some(format!("{scheme}://{}:{password}@{host}", user.replace('@', "%40")))
        };
        let urls: Option<Vec<String>> = self.url.split(',').map(with_user).collect();
        urls.map_or_else(|| format!("redis://{user}:{password}@HOST:6379/"), |urls| urls.join(","))
    }
}
