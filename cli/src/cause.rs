//! The meaning of a Redis error for an operator, and the remedy.
//!
//! Owns the texts for errors in a server's reply. Silence and lost connections have texts elsewhere.

/// One kind of error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cause {
    /// The first word of the error from Redis.
    code: &'static str,
    pub(crate) found: &'static str,
    pub(crate) next: &'static str,
}

const CAUSES: [Cause; 12] = [
    Cause {
        code: "WRONGPASS",
        found: "Redis does not accept the user name or the password",
        next: "check user and password in --redis or PORTCULLIS_REDIS (percent-encode special characters)",
    },
    Cause {
        code: "NOAUTH",
        found: "Redis asks for a password, and the URL has none",
        next: "redis://USER:PASSWORD@HOST/ in PORTCULLIS_REDIS",
    },
    Cause {
        code: "NOPERM",
        found: "this Redis user may not do that",
        next: "give the user the commands and keys that docs/reference/redis-keys.md lists, or use another user",
    },
    Cause {
        code: "OOM",
        found: "Redis is out of memory: maxmemory is reached, and it takes no writes",
        next: "raise maxmemory or free memory; gateways refuse calls until then. portcullis doctor shows how full it is",
    },
    Cause {
        code: "READONLY",
        found: "this server is a read-only replica",
        next: "name the primary in --redis or PORTCULLIS_REDIS: INFO replication shows master_host and master_port",
    },
    Cause {
        code: "MISCONF",
        found: "Redis takes no writes because it cannot save them to disk",
        next: "look at the server's log, the free space and the permissions of its data directory",
    },
    Cause {
        code: "NOREPLICAS",
        found: "Redis takes no writes because too few replicas are connected (min-replicas-to-write)",
        next: "look at the replicas, or lower min-replicas-to-write",
    },
    Cause {
        code: "LOADING",
        found: "Redis is loading its data into memory",
        next: "wait until it has, and try again",
    },
    Cause {
        code: "MASTERDOWN",
        found: "this server is a replica that has lost its primary",
        next: "name the primary in --redis or PORTCULLIS_REDIS, or bring it back",
    },
    Cause {
        code: "CLUSTERDOWN",
        found: "the Redis Cluster does not serve all slots",
        next: "redis-cli --cluster check HOST:PORT shows which node is missing",
    },
    Cause {
        code: "BUSY",
        found: "Redis is busy with a script that does not end",
        next: "SCRIPT KILL ends it, if it has written nothing",
    },
    Cause {
        code: "MAXCLIENTS",
        found: "Redis has as many connections as it allows (maxclients)",
        next: "raise maxclients, or close connections: CLIENT LIST shows whose they are",
    },
];

/// Whether the command failed because of missing permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rights {
    Wanting,
    Unknown,
}

impl Cause {
    pub(crate) fn rights(self) -> Rights {
        if self.code == "NOPERM" { Rights::Wanting } else { Rights::Unknown }
    }

    /// The cause for the text of an error.
    pub(crate) fn of(error: &str) -> Option<Self> {
        let named = |word: &str| CAUSES.into_iter().find(|cause| cause.code == word);
        let words = error.split(|letter: char| !letter.is_ascii_uppercase());
        let said = |text: &str, code: &str| error.contains(text).then(|| named(code)).flatten();
        words
            .filter_map(named)
            .next()
            .or_else(|| said("max number of clients reached", "MAXCLIENTS"))
            // The error of older servers for a script whose user may not run one of its commands.
            .or_else(|| said("can't run this command", "NOPERM"))
            .or_else(|| said("can't access at least one of the keys", "NOPERM"))
            .or_else(|| said("uthentication failed", "WRONGPASS"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Finding 9.14: each of these said "check --redis".
    #[test]
    fn an_error_says_its_cause() {
        for (error, code) in [
            (
                "OOM command not allowed when used memory > 'maxmemory'. script: 1, on @user_script:9",
                "OOM",
            ),
            ("\"READONLY\": You can't write against a read only replica.", "READONLY"),
            ("MISCONF Redis is configured to save RDB snapshots, but it's unable to", "MISCONF"),
            ("WRONGPASS invalid username-password pair or user is disabled.", "WRONGPASS"),
            ("Password authentication failed", "WRONGPASS"),
            ("ERR The user executing the script can't run this command or subcommand", "NOPERM"),
            (
                "ERR The user executing the script can't access at least one of the keys mentioned in the command",
                "NOPERM",
            ),
            ("ERR max number of clients reached", "MAXCLIENTS"),
        ] {
            assert_eq!(Cause::of(error).map(|cause| cause.code), Some(code), "{error}");
        }
        assert_eq!(Cause::of("ERR BUSYGROUP or whatever"), None);
        assert_eq!(Cause::of("Connection refused (os error 111)"), None);
    }
}
