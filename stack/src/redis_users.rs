//! The Redis users: `envoy/redis/users.acl` with passwords, and an administrator with all rights.
//!
//! Owns the passwords of one stack. The shipped file defines the rights.

use crate::bootstrap::Bootstrap;
use crate::error::Result;
use crate::files::{random_hex, write_private};
use std::path::{Path, PathBuf};

/// The users of one stack's Redis.
#[derive(Debug, Clone)]
pub struct RedisUsers {
    /// The file for Redis's setting `aclfile`.
    pub file: PathBuf,
    /// A file that contains only the gateway's password, for Envoy.
    pub gateway_file: PathBuf,
    /// The operator's password.
    pub operator: String,
    /// The password of the administrator, who sets up Clusters.
    pub admin: String,
}

impl RedisUsers {
    /// Makes new passwords; writes the files to `dir`.
    pub fn create(root: &Path, dir: &Path) -> Result<Self> {
        let template = root.join("envoy/redis/users.acl");
        let [gateway, operator, admin] = [random_hex(16)?, random_hex(16)?, random_hex(16)?];
        let passwords = Bootstrap::default()
            .set("REDIS_PASSWORD", &gateway)
            .set("OPERATOR_PASSWORD", &operator);
        let rules = passwords.render(&template)?;
        let users = Self {
            file: dir.join("users.acl"),
            gateway_file: dir.join("redis-password"),
            operator,
            admin,
        };
        let all = format!("{rules}user admin on >{} ~* &* +@all\n", users.admin);
        write_private(&users.file, &all)?;
        write_private(&users.gateway_file, &gateway)?;
        Ok(users)
    }
}
