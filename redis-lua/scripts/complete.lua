#!lua
-- complete: notes where the audit entry of a call is whose intent admit.lua appended.
--
-- KEYS    intents (STREAM; see admit.lua).
-- ARGV    the request's id; chain, seq and hash of its entry.
-- RETURNS {1}.
-- ATOMIC  Redis runs a script alone.
-- EXPIRY  A day after the last intent or entry.
-- MEMORY  Some 200 bytes for each call, of the last 100,000 intents and entries.
-- ACL     +xadd +pexpire on the keys given.

redis.call('XADD', KEYS[1], 'MAXLEN', '~', 100000, '*', 'done', ARGV[1], 'chain', ARGV[2], 'seq', ARGV[3], 'hash', ARGV[4])
redis.call('PEXPIRE', KEYS[1], 86400000)
return {1}
