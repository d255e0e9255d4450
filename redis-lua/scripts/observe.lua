#!lua
-- observe: what a list of a server showed of tools, compared with their pins.
--
-- KEYS    tools (HASHes with `rev` and `doc`, so that they can guard an admission: see admit.lua); one hash tag.
-- ARGV    life_ms, when the list was seen (microseconds), then the state of each tool, in the order of KEYS: what `rev` is compared with.
-- RETURNS {n}: so many were written.
-- ATOMIC  Redis runs a script alone.
-- EXPIRY  life_ms after the last list that showed the tool.
-- MEMORY  One small hash for each pinned tool of a connector whose policy asks for it.
-- ACL     +hset +pexpire on the keys given.

local life_ms, at = ARGV[1], ARGV[2]

for i, tool in ipairs(KEYS) do
  redis.call('HSET', tool, 'rev', ARGV[2 + i], 'doc', at)
  redis.call('PEXPIRE', tool, life_ms)
end
return {#KEYS}
